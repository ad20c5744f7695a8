// simdjson's on-demand parser behind json.h. It finds the structure; arrays of numbers are read by numbers.c from their text, and
// every scalar is checked against the grammar, which on-demand parsing leaves out for what is skipped.
#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"
#include "drilling/json.h"

using simdjson::ondemand::array;
using simdjson::ondemand::document;
using simdjson::ondemand::field;
using simdjson::ondemand::object;
using simdjson::ondemand::value;

struct json_reader {
    simdjson::ondemand::parser *parser = nullptr;
    char *text = nullptr; // a copy of the document, followed by SIMDJSON_PADDING zero bytes
    size_t capacity = 0;  // bytes of a document that fit
};

namespace
{

constexpr size_t FIRST_CAPACITY = 16 * 1024;

// One json_read: what the functions below share.
struct reading {
    const json_visitor *visitor;
    void *context;
    const char *text, *end;
    const char *last = nullptr; // start of the value that is being read
    bool too_deep = false;
};

bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

// Whether nothing but white space follows in the token that starts at `token`.
bool token_ends(std::string_view token, size_t size)
{
    for (size_t i = size; i < token.size(); i++) {
        if (!is_space(token[i]))
            return false;
    }
    return size <= token.size();
}

simdjson::error_code read_literal(std::string_view token, const char *word, json_value *out)
{
    size_t size = strlen(word);
    if (token.compare(0, size, word) != 0 || !token_ends(token, size))
        return simdjson::TAPE_ERROR;
    out->text = word;
    out->length = size;
    return simdjson::SUCCESS;
}

simdjson::error_code read_scalar(value &source, std::string_view token, const numbers_target *target, json_value *out)
{
    if (token[0] == '"') {
        std::string_view text;
        out->type = JSON_STRING;
        SIMDJSON_TRY(source.get_string().get(text));
        out->text = text.data();
        out->length = text.size();
        return simdjson::SUCCESS;
    }
    if (token[0] == 't' || token[0] == 'f') {
        out->type = JSON_BOOLEAN;
        return read_literal(token, token[0] == 't' ? "true" : "false", out);
    }
    if (token[0] == 'n') {
        out->type = JSON_NULL;
        return read_literal(token, "null", out);
    }
    double number;
    size_t size = numbers_read(token.data(), &number);
    if (size == 0 || !token_ends(token, size))
        return simdjson::NUMBER_ERROR;
    out->type = JSON_NUMBER;
    out->text = token.data();
    out->length = size;
    if (target->kind != NUMBERS_CHECK_ONLY) {
        out->numbers.problem = numbers_store(target, 0, number);
        out->numbers.count = 1;
    }
    return simdjson::SUCCESS;
}

json_type type_of(char first)
{
    switch (first) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
    case 'f':
        return JSON_BOOLEAN;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER; // or nothing valid: read_scalar finds out
    }
}

simdjson::error_code walk(reading &reading, value source, unsigned depth, const char *key, size_t key_length, bool skipped);

simdjson::error_code walk_object(reading &reading, object source, unsigned depth, bool skipped)
{
    for (auto item : source) {
        field member;
        SIMDJSON_TRY(std::move(item).get(member));
        std::string_view name;
        SIMDJSON_TRY(member.unescaped_key().get(name));
        SIMDJSON_TRY(walk(reading, member.value(), depth + 1, name.data(), name.size(), skipped));
    }
    return simdjson::SUCCESS;
}

simdjson::error_code walk_array(reading &reading, array source, unsigned depth, bool skipped)
{
    for (auto item : source) {
        value element;
        SIMDJSON_TRY(std::move(item).get(element));
        SIMDJSON_TRY(walk(reading, element, depth + 1, nullptr, 0, skipped));
    }
    return simdjson::SUCCESS;
}

// The first element that is not a number, for an array whose elements all turned out to be valid values.
size_t first_stranger(const char *text)
{
    size_t index = 0;
    const char *at = text + 1;
    for (;;) {
        while (is_space(*at))
            at++;
        double number;
        size_t size = numbers_read(at, &number);
        if (size == 0)
            return index;
        at += size;
        while (is_space(*at))
            at++;
        if (*at != ',')
            return index;
        at++;
        index++;
    }
}

simdjson::error_code take_array(reading &reading, value source, const char *text, unsigned depth, const numbers_target *target,
                                bool skipped)
{
    json_value taken{};
    taken.type = JSON_ARRAY;
    if (!numbers_read_array(text, target, &taken.numbers)) {
        array elements;
        SIMDJSON_TRY(source.get_array().get(elements));
        SIMDJSON_TRY(walk_array(reading, elements, depth, true));
        taken.numbers.problem = NUMBERS_NOT_A_NUMBER;
        taken.numbers.problem_index = first_stranger(text);
    }
    if (!skipped)
        reading.visitor->value(reading.context, &taken);
    return simdjson::SUCCESS;
}

// `source` is a value or the document: the latter checks that its last bracket is there.
template <typename container>
simdjson::error_code walk_container(reading &reading, container &source, unsigned depth, json_type kind, bool skipped)
{
    if (kind == JSON_OBJECT) {
        object members;
        SIMDJSON_TRY(source.get_object().get(members));
        SIMDJSON_TRY(walk_object(reading, members, depth, skipped));
    } else {
        array elements;
        SIMDJSON_TRY(source.get_array().get(elements));
        SIMDJSON_TRY(walk_array(reading, elements, depth, skipped));
    }
    if (!skipped)
        reading.visitor->leave(reading.context);
    return simdjson::SUCCESS;
}

simdjson::error_code walk(reading &reading, value source, unsigned depth, const char *key, size_t key_length, bool skipped)
{
    if (depth > JSON_DEPTH_MAX) {
        reading.too_deep = true;
        return simdjson::DEPTH_ERROR;
    }
    std::string_view token = source.raw_json_token();
    reading.last = token.data();
    if (token.empty())
        return simdjson::TAPE_ERROR;
    json_type kind = type_of(token[0]);
    numbers_target target{};
    json_action action = skipped ? JSON_SKIP : reading.visitor->member(reading.context, depth, key, key_length, kind, &target);
    if (kind == JSON_ARRAY && action != JSON_ENTER)
        return take_array(reading, source, token.data(), depth, &target, action == JSON_SKIP);
    if (kind == JSON_OBJECT || kind == JSON_ARRAY)
        return walk_container(reading, source, depth, kind, action != JSON_ENTER);
    json_value taken{};
    SIMDJSON_TRY(read_scalar(source, token, &target, &taken));
    if (action == JSON_TAKE)
        reading.visitor->value(reading.context, &taken);
    return simdjson::SUCCESS;
}

// Whether the iterator stands behind the last token of the document.
bool at_end(document &source)
{
    return source.current_location().error() == simdjson::OUT_OF_BOUNDS;
}

// A document that is one scalar has no structure to walk: on-demand parsing offers it through functions of its own.
simdjson::error_code walk_root_scalar(reading &reading, document &source, std::string_view token)
{
    numbers_target target{};
    json_value taken{};
    json_type kind = type_of(token[0]);
    json_action action = reading.visitor->member(reading.context, 0, nullptr, 0, kind, &target);
    std::string_view text;
    if (kind == JSON_STRING) {
        SIMDJSON_TRY(source.get_string().get(text));
        taken = json_value{JSON_STRING, text.data(), text.size(), {}};
        if (!at_end(source))
            return simdjson::TRAILING_CONTENT;
    } else {
        value unused;
        SIMDJSON_TRY(read_scalar(unused, std::string_view(token.data(), size_t(reading.end - token.data())), &target, &taken));
    }
    if (action == JSON_TAKE)
        reading.visitor->value(reading.context, &taken);
    return simdjson::SUCCESS;
}

simdjson::error_code walk_document(reading &reading, document &source)
{
    std::string_view token;
    SIMDJSON_TRY(source.raw_json_token().get(token));
    reading.last = token.data();
    if (token[0] != '{' && token[0] != '[')
        return walk_root_scalar(reading, source, token);
    json_type kind = type_of(token[0]);
    numbers_target target{};
    json_action action = reading.visitor->member(reading.context, 0, nullptr, 0, kind, &target);
    SIMDJSON_TRY(walk_container(reading, source, 0, kind, action != JSON_ENTER));
    return at_end(source) ? simdjson::SUCCESS : simdjson::TRAILING_CONTENT;
}

// Whether the document ends within an object, array or text: the usual trace of a message that was cut.
bool is_cut(const char *text, const char *end)
{
    bool in_text = false;
    long open = 0;
    for (const char *at = text; at < end; at++) {
        if (in_text && *at == '\\')
            at++;
        else if (*at == '"')
            in_text = !in_text;
        else if (!in_text)
            open += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
    }
    return in_text || open > 0;
}

const char *failure_text(simdjson::error_code error)
{
    switch (error) {
    case simdjson::EMPTY:
        return "it is empty";
    case simdjson::TRAILING_CONTENT:
        return "something follows the document";
    case simdjson::NUMBER_ERROR:
        return "a malformed number or word";
    case simdjson::STRING_ERROR:
    case simdjson::UNESCAPED_CHARS:
        return "a text with a control character or a malformed escape";
    case simdjson::UTF8_ERROR:
        return "it is not UTF-8";
    case simdjson::DEPTH_ERROR:
        return "it is nested too deep";
    default:
        return "a comma, colon, bracket or value is missing or misplaced";
    }
}

void reader_forget(json_reader *reader)
{
    delete reader->parser;
    free(reader->text);
    *reader = json_reader{};
}

// Makes room for a document of `length` bytes; gives the memory of a large one back.
int reader_prepare(json_reader *reader, size_t length)
{
    if (reader->capacity > JSON_KEPT_BYTES && length <= JSON_KEPT_BYTES)
        reader_forget(reader);
    if (reader->capacity >= length && reader->parser)
        return 0;
    size_t capacity = FIRST_CAPACITY;
    while (capacity < length)
        capacity = capacity > SIZE_MAX / 4 ? length : capacity * 2;
    reader_forget(reader);
    reader->parser = new (std::nothrow) simdjson::ondemand::parser;
    reader->text = static_cast<char *>(malloc(capacity + simdjson::SIMDJSON_PADDING));
    if (!reader->parser || !reader->text || reader->parser->allocate(capacity) != simdjson::SUCCESS) {
        reader_forget(reader);
        return ERR_NO_MEMORY;
    }
    reader->capacity = capacity;
    return 0;
}

} // namespace

int json_reader_create(struct json_reader **reader)
{
    json_reader *created = new (std::nothrow) json_reader;
    if (!created)
        return ERR_NO_MEMORY;
    *reader = created;
    return 0;
}

void json_reader_destroy(struct json_reader *reader)
{
    if (reader) {
        reader_forget(reader);
        delete reader;
    }
}

int json_read(struct json_reader *reader, const uint8_t *bytes, size_t length, const struct json_visitor *visitor, void *context,
              struct json_failure *failure)
{
    int error = reader_prepare(reader, length);
    if (error)
        return error;
    if (length)
        memcpy(reader->text, bytes, length);
    memset(reader->text + length, 0, simdjson::SIMDJSON_PADDING);
    reading reading{visitor, context, reader->text, reader->text + length};
    document source;
    simdjson::error_code code = reader->parser->iterate(reader->text, length, length + simdjson::SIMDJSON_PADDING).get(source);
    if (!code)
        code = walk_document(reading, source);
    if (!code)
        return 0;
    if (code == simdjson::MEMALLOC)
        return ERR_NO_MEMORY;
    bool cut = !reading.too_deep && is_cut(reading.text, reading.end);
    if (cut)
        reading.last = reading.end;
    failure->offset = reading.last ? size_t(reading.last - reading.text) : 0;
    failure->text = cut ? "it is cut: an object, array or text is not closed" : failure_text(code);
    return reading.too_deep ? ERR_PAYLOAD : ERR_NOT_JSON;
}

size_t json_double_text(double number, char text[JSON_DOUBLE_TEXT_SIZE])
{
    if (number != number || number - number != 0) {
        const char *word = number != number ? "nan" : number > 0 ? "inf" : "-inf";
        strcpy(text, word);
        return strlen(word);
    }
    char digits[JSON_DOUBLE_TEXT_SIZE]; // d.ddde+XX
    char *digits_end = std::to_chars(digits, digits + sizeof digits, number, std::chars_format::scientific).ptr;
    char *mark = static_cast<char *>(memchr(digits, 'e', size_t(digits_end - digits)));
    *digits_end = 0;
    int exponent = atoi(mark + 1);
    char *out = text;
    char *in = digits;
    if (*in == '-')
        *out++ = *in++;
    if (exponent < -4 || exponent >= 16) {
        size_t size = size_t(digits_end - in); // Python writes it the same way: at least two digits of exponent, and its sign
        memcpy(out, in, size);
        out += size;
    } else {
        char significant[JSON_DOUBLE_TEXT_SIZE];
        int count = 0;
        for (; in < mark; in++) {
            if (*in != '.')
                significant[count++] = *in;
        }
        if (exponent < 0) {
            *out++ = '0';
            *out++ = '.';
            for (int i = -1; i > exponent; i--)
                *out++ = '0';
        }
        for (int i = 0; i < count || i <= exponent; i++) {
            *out++ = i < count ? significant[i] : '0';
            if (i == exponent && i + 1 < count)
                *out++ = '.';
        }
        if (exponent >= count - 1) {
            *out++ = '.';
            *out++ = '0';
        }
    }
    *out = 0;
    return size_t(out - text);
}

#include "cli/journal/when.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"

#define SECOND_NS UINT64_C(1000000000)
#define AGE_MAX_S 1e9 /* 31 years */

static int refuse(char message[VALUE_MESSAGE_MAX], const char *expected, const char *text)
{
    snprintf(message, VALUE_MESSAGE_MAX, "expected %s, found `%.60s`", expected, text);
    return ERR_INVALID;
}

/* A number without sign and exponent and one letter of a unit; nothing else. */
static bool read_age(const char *text, uint64_t *age_ns)
{
    static const char letters[] = "smhdw";
    static const double seconds[] = {1, 60, 3600, 86400, 604800};
    size_t digits = strspn(text, "0123456789.");
    const char *letter = text[digits] ? strchr(letters, text[digits]) : NULL;
    char *end;
    if (digits == 0 || !letter || text[digits + 1])
        return false;
    double number = strtod(text, &end) * seconds[letter - letters];
    if (end != text + digits || !(number <= AGE_MAX_S))
        return false;
    *age_ns = (uint64_t)llround(number * 1e9);
    return true;
}

int when_age_parse(const char *text, uint64_t *age_ns, char message[VALUE_MESSAGE_MAX])
{
    return read_age(text, age_ns) ? 0 : refuse(message, "an age such as 90s, 10m, 36h, 7d or 2w", text);
}

/* Takes exactly `count` digits; -1 when there are fewer, or the number is outside low..high. */
static int take_digits(const char **at, unsigned count, int low, int high)
{
    int number = 0;
    for (unsigned i = 0; i < count; i++, (*at)++) {
        if (!isdigit((unsigned char)**at))
            return -1;
        number = number * 10 + (**at - '0');
    }
    return number >= low && number <= high ? number : -1;
}

static bool take_char(const char **at, const char *accepted)
{
    if (!**at || !strchr(accepted, **at))
        return false;
    (*at)++;
    return true;
}

/* Behind the date: hours, minutes, seconds, a fraction, and the distance from UTC in seconds. */
static bool take_clock(const char **at, struct tm *t, uint64_t *fraction_ns, long *zone_s)
{
    if ((t->tm_hour = take_digits(at, 2, 0, 23)) < 0 || !take_char(at, ":") || (t->tm_min = take_digits(at, 2, 0, 59)) < 0 ||
        !take_char(at, ":") || (t->tm_sec = take_digits(at, 2, 0, 60)) < 0)
        return false;
    if (take_char(at, ".")) {
        uint64_t unit = SECOND_NS / 10;
        if (!isdigit((unsigned char)**at))
            return false;
        for (; isdigit((unsigned char)**at); (*at)++, unit /= 10)
            *fraction_ns += (uint64_t)(**at - '0') * unit;
    }
    if (take_char(at, "Zz"))
        return true;
    int sign = **at == '-' ? -1 : 1, hours, minutes;
    if (!take_char(at, "+-") || (hours = take_digits(at, 2, 0, 23)) < 0 || !take_char(at, ":") || (minutes = take_digits(at, 2, 0, 59)) < 0)
        return false;
    *zone_s = sign * (hours * 3600l + minutes * 60l);
    return true;
}

static bool read_time(const char *text, uint64_t *time_ns)
{
    struct tm t = {0};
    const char *at = text;
    uint64_t fraction_ns = 0;
    long zone_s = 0;
    int year = take_digits(&at, 4, 1970, 2500), month, day;
    if (year < 0 || !take_char(&at, "-") || (month = take_digits(&at, 2, 1, 12)) < 0 || !take_char(&at, "-") ||
        (day = take_digits(&at, 2, 1, 31)) < 0)
        return false;
    t.tm_year = year - 1900;
    t.tm_mon = month - 1;
    t.tm_mday = day;
    if (*at && (!take_char(&at, "Tt ") || !take_clock(&at, &t, &fraction_ns, &zone_s) || *at))
        return false;
    time_t seconds = timegm(&t);
    if (t.tm_mday != day || seconds < zone_s) /* such as the 31st of June */
        return false;
    *time_ns = (uint64_t)(seconds - zone_s) * SECOND_NS + fraction_ns;
    return true;
}

int when_parse(const char *text, uint64_t now_ns, struct when *when, char message[VALUE_MESSAGE_MAX])
{
    struct when parsed = {.is_time = true};
    uint64_t age_ns;
    if (text[0] == '-' && read_age(text + 1, &age_ns)) {
        parsed.time_ns = age_ns < now_ns ? now_ns - age_ns : 0;
    } else if (*text && text[strspn(text, "0123456789")] == 0 && strlen(text) <= 19) {
        parsed = (struct when){.offset = strtoull(text, NULL, 10)};
    } else if (!read_time(text, &parsed.time_ns)) {
        return refuse(message, "an offset, a time such as 2026-11-21T10:34:43Z, or an age such as -10m", text);
    }
    *when = parsed;
    return 0;
}

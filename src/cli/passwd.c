/* `spindle passwd`: the users of a file. A password is asked for, or read from a file; it is never an argument, where every process of the
 * machine could read it, and is wiped as soon as it is hashed. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "access/users.h"
#include "base/buffer.h"
#include "base/error.h"
#include "cli/command.h"

enum { PASSWORD_MAX = 1024, LIST_BYTES_MAX = 64 << 20 };

/* ---- getting the password ---- */

static struct termios terminal_before;

/* An interrupted question must not leave a terminal that shows nothing. */
static void on_interrupt(int number)
{
    tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal_before);
    signal(number, SIG_DFL);
    raise(number);
}

/* Reads the first line of `file`, without its end. Returns its length, 0 when it is empty or longer than PASSWORD_MAX (which is said). */
static size_t read_line(FILE *file, char password[PASSWORD_MAX + 3])
{
    setvbuf(file, NULL, _IONBF, 0); /* no copy of it stays in a buffer */
    size_t length = 0;
    for (int c; (c = getc(file)) != EOF && c != '\n';) {
        if (length > PASSWORD_MAX + 1) {
            fprintf(stderr, "spindle passwd: the password is longer than %d bytes\n", PASSWORD_MAX);
            return 0;
        }
        password[length++] = (char)c;
    }
    if (length && password[length - 1] == '\r')
        length--;
    if (length > PASSWORD_MAX)
        fprintf(stderr, "spindle passwd: the password is longer than %d bytes\n", PASSWORD_MAX);
    else if (length == 0)
        fprintf(stderr, "spindle passwd: the password is empty\n");
    return length > PASSWORD_MAX ? 0 : length;
}

static size_t ask(const char *question, char password[PASSWORD_MAX + 3])
{
    struct termios silent;
    if (tcgetattr(STDIN_FILENO, &terminal_before))
        return 0;
    silent = terminal_before;
    silent.c_lflag &= (tcflag_t)~ECHO;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &silent);
    fprintf(stderr, "%s", question); /* nothing that is typed from here on is shown */
    size_t length = read_line(stdin, password);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal_before);
    fputc('\n', stderr);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    return length;
}

static size_t ask_twice(const char *user, char password[PASSWORD_MAX + 3])
{
    char question[USERS_NAME_MAX + 64], again[PASSWORD_MAX + 3];
    snprintf(question, sizeof question, "Password of %s: ", user);
    size_t length = ask(question, password);
    if (length == 0)
        return 0;
    size_t length_again = ask("Again: ", again);
    bool same = length == length_again && memcmp(password, again, length) == 0;
    password_wipe(again, sizeof again);
    if (!same && length_again)
        fprintf(stderr, "spindle passwd: the two differ; nothing was changed\n");
    return same ? length : 0;
}

static size_t get_password(const struct passwd_arguments *arguments, char password[PASSWORD_MAX + 3])
{
    if (!arguments->password_file && isatty(STDIN_FILENO))
        return ask_twice(arguments->user, password);
    if (!arguments->password_file || strcmp(arguments->password_file, "-") == 0)
        return read_line(stdin, password);
    FILE *file = fopen(arguments->password_file, "re");
    if (!file) {
        fprintf(stderr, "spindle passwd: %s cannot be read: %s\n", arguments->password_file, strerror(errno));
        return 0;
    }
    size_t length = read_line(file, password);
    fclose(file);
    return length;
}

/* ---- what is done ---- */

static int fail(const struct passwd_arguments *arguments, int error)
{
    fprintf(stderr, "spindle passwd: %s cannot be changed: %s; nothing was changed\n", arguments->file, error_text(error));
    return COMMAND_FAILED;
}

static int set(const struct passwd_arguments *arguments)
{
    char password[PASSWORD_MAX + 3], hash[PASSWORD_HASH_MAX];
    size_t length = get_password(arguments, password);
    if (length == 0) {
        password_wipe(password, sizeof password);
        return COMMAND_FAILED;
    }
    int error = password_hash(password, length, hash);
    password_wipe(password, sizeof password);
    bool existed;
    if (!error)
        error = users_change(arguments->file, arguments->user, hash, &existed);
    if (error)
        return fail(arguments, error);
    printf("%s: %s %s\n", arguments->file, arguments->user, existed ? "has a new password" : "was added");
    return COMMAND_OK;
}

static int remove_user(const struct passwd_arguments *arguments)
{
    bool existed;
    int error = users_change(arguments->file, arguments->user, NULL, &existed);
    if (error == ERR_NOT_FOUND) {
        fprintf(stderr, "spindle passwd: there is no user `%s` in %s\n", arguments->user, arguments->file);
        return COMMAND_FAILED;
    }
    if (error)
        return fail(arguments, error);
    printf("%s: %s was removed\n", arguments->file, arguments->user);
    return COMMAND_OK;
}

static int write_list(const struct users *users, bool json, struct buffer *out)
{
    int error = json ? buffer_append_text(out, "{\"users\": [") : 0;
    for (size_t i = 0; !error && i < users->count; i++) {
        const char *name = users->rows[i].name;
        if (json) {
            error = i ? buffer_append_text(out, ", ") : 0;
            error = error ? error : buffer_append_json_string(out, name, strlen(name), 0);
        } else {
            error = buffer_printf(out, "%s\n", name);
        }
    }
    return error || !json ? error : buffer_append_text(out, "]}\n");
}

static int list(const struct passwd_arguments *arguments)
{
    struct users users = {0};
    struct problems problems;
    struct buffer out;
    problems_init(&problems);
    buffer_init(&out, LIST_BYTES_MAX);
    int error = users_read(&users, arguments->file, &problems);
    problems_print(&problems, stderr);
    if (!error)
        error = write_list(&users, arguments->json, &out);
    if (error && error != ERR_CONFIG)
        fprintf(stderr, "spindle passwd: %s\n", error_text(error));
    if (!error && out.length)
        fwrite(out.data, 1, out.length, stdout);
    buffer_fini(&out);
    problems_fini(&problems);
    users_fini(&users);
    return error ? COMMAND_FAILED : COMMAND_OK;
}

static int refuse(const char *text)
{
    fprintf(stderr, "spindle passwd: %s; see `spindle help passwd`\n", text);
    return COMMAND_USAGE;
}

int command_passwd(const struct passwd_arguments *arguments)
{
    if (arguments->list && (arguments->user || arguments->remove))
        return refuse("--list takes the FILE alone");
    if (arguments->json && !arguments->list)
        return refuse("--json belongs to --list");
    if (!arguments->list && !arguments->user)
        return refuse("which USER?");
    if (arguments->remove && arguments->password_file)
        return refuse("--delete needs no password");
    if (arguments->user && !users_name_valid(arguments->user, strlen(arguments->user)))
        return refuse("a user's name has 1 to 256 bytes, without `:` and control characters, and does not begin with `#`");
    if (password_init()) {
        fprintf(stderr, "spindle passwd: the system has no randomness\n");
        return COMMAND_FAILED;
    }
    int status = arguments->list ? list(arguments) : arguments->remove ? remove_user(arguments) : set(arguments);
    return command_finish_output("spindle passwd", status);
}

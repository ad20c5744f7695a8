#include "cli/journal/prove_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/http_client.h"

enum { READY_LINE_MAX = 128, READY_TIMEOUT_S = 60, STOP_TIMEOUT_S = 60, STOP_STEP_MS = 10 };

/* In the child. The environment stays behind: SPINDLE_... in it would change the settings that are proved. */
static _Noreturn void become_server(const char *data_dir, const char *log_path, int output)
{
    char *const arguments[] = {"spindle",     "run",
                               "--data-dir",  (char *)(uintptr_t)data_dir,
                               "--port",      "0",
                               "--http-port", "0",
                               "--set",       "bus.host=127.0.0.1",
                               "--set",       "http.host=127.0.0.1",
                               "--set",       "journal.segment_size=16MiB",
                               NULL};
    char *const environment[] = {NULL};
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0); /* Ctrl-C is for the parent alone */
    if (log >= 0 && input >= 0 && dup2(input, 0) == 0 && dup2(output, 1) == 1 && dup2(log, 2) == 2)
        execve("/proc/self/exe", arguments, environment);
    _exit(127);
}

int prove_child_start(struct prove_child *child, const char *data_dir, const char *log_path)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return ERR_IO;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become_server(data_dir, log_path, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return ERR_IO;
    }
    *child = (struct prove_child){.pid = pid, .output = ends[0]};
    return 0;
}

static void forget(struct prove_child *child)
{
    if (child->output >= 0)
        close(child->output);
    *child = (struct prove_child){.output = -1};
}

int prove_child_wait_ready(struct prove_child *child, char problem[PROVE_PROBLEM_MAX])
{
    char line[READY_LINE_MAX];
    size_t length = 0;
    uint64_t end_ns = clock_monotonic_ns() + READY_TIMEOUT_S * UINT64_C(1000000000);
    while (length + 1 < sizeof line && (length == 0 || line[length - 1] != '\n')) {
        uint64_t now_ns = clock_monotonic_ns();
        struct pollfd poller = {.fd = child->output, .events = POLLIN};
        int ready = now_ns < end_ns ? poll(&poller, 1, (int)((end_ns - now_ns) / 1000000) + 1) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0 || read(child->output, line + length, 1) != 1)
            break;
        length++;
    }
    line[length] = 0;
    unsigned mqtt_port, http_port;
    if (sscanf(line, "ready mqtt=%u http=%u", &mqtt_port, &http_port) != 2) {
        snprintf(problem, PROVE_PROBLEM_MAX, "the server did not become ready");
        return ERR_CLOSED;
    }
    child->mqtt_port = (uint16_t)mqtt_port;
    child->http_port = (uint16_t)http_port;
    return 0;
}

void prove_child_kill(struct prove_child *child)
{
    if (child->pid > 0) {
        kill(child->pid, SIGKILL);
        while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    forget(child);
}

int prove_child_stop(struct prove_child *child, char problem[PROVE_PROBLEM_MAX])
{
    int status = 0;
    pid_t ended = 0;
    kill(child->pid, SIGTERM);
    for (unsigned waited_ms = 0; ended == 0 && waited_ms < STOP_TIMEOUT_S * 1000; waited_ms += STOP_STEP_MS) {
        ended = waitpid(child->pid, &status, WNOHANG);
        if (ended == 0)
            poll(NULL, 0, STOP_STEP_MS);
    }
    if (ended == child->pid && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        forget(child);
        return 0;
    }
    snprintf(problem, PROVE_PROBLEM_MAX, "the server did not end in order at SIGTERM");
    if (ended == child->pid)
        child->pid = 0;
    prove_child_kill(child);
    return ERR_CLOSED;
}

int prove_child_get(const struct prove_child *child, const char *path, struct buffer *body)
{
    int status;
    int error = http_client_ask("127.0.0.1", child->http_port, path, NULL, &status, body);
    return error || status != 200 ? ERR_IO : 0;
}

/* `spindle run`: reads the configuration, starts the server, and waits for signals: SIGTERM and SIGINT drain and stop, SIGHUP reads the
 * configuration again. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "base/version.h"
#include "cli/check.h"
#include "cli/command.h"
#include "cli/reload.h"
#include "cli/server.h"
#include "cli/server_access.h"
#include "cli/server_ingest.h"

static int load(struct config *config, const struct config_sources *sources)
{
    struct problems problems;
    problems_init(&problems);
    int error = config_load(config, sources, &problems);
    if (!error && (error = server_access_check(config, &problems)))
        config_fini(config);
    if (!error && server_ingest_check(config, &problems)) {
        config_fini(config);
        error = ERR_CONFIG;
    }
    if (!error)
        reload_set_diagnostics(config);
    problems_print(&problems, stderr);
    problems_fini(&problems);
    return error;
}

/* Version, process and where the configuration came from. */
static void say_start(const struct config *config, const struct config_sources *sources)
{
    unsigned from[CONFIG_FROM_ARGUMENT + 1] = {0};
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++)
        from[config->origins[i].source]++;
    diagnostics(DIAGNOSTICS_INFO, "run", "spindle " SPINDLE_VERSION ", process %d", (int)getpid());
    diagnostics(DIAGNOSTICS_INFO, "run", "configuration: %s%s; %u settings from the environment, %u from the command line",
                sources->file ? "the file " : "defaults", sources->file ? sources->file : "", from[CONFIG_FROM_ENVIRONMENT],
                from[CONFIG_FROM_ARGUMENT]);
}

/* ---- signals ---- */

/* As long as nothing was begun there is nothing to drain. */
static void on_early_stop(int number)
{
    static const char interrupted[] = "spindle run: SIGINT before the start; stopped\n";
    static const char terminated[] = "spindle run: SIGTERM before the start; stopped\n";
    ssize_t written = number == SIGINT ? write(STDERR_FILENO, interrupted, sizeof interrupted - 1)
                                       : write(STDERR_FILENO, terminated, sizeof terminated - 1);
    (void)written; /* nobody is left to be told */
    _exit(COMMAND_OK);
}

/* While the configuration is read. A SIGHUP waits until the server is ready. */
static void take_early_signals(void)
{
    sigset_t later;
    sigemptyset(&later);
    sigaddset(&later, SIGHUP);
    sigaddset(&later, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &later, NULL);
    const struct sigaction stop = {.sa_handler = on_early_stop};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
}

/* From here on they wait for sigwait, in all threads. */
static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
}

/* ---- running ---- */

/* Every connection and every segment takes a file descriptor: as many as the system lets this process have. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int serve(const struct config *config, struct reload *reload, const sigset_t *signals)
{
    struct server *server;
    if (server_start(&server, config, reload))
        return COMMAND_FAILED;
    reload_begin(reload, server);
    printf("ready mqtt=%u http=%u\n", server_mqtt_port(server), server_http_port(server));
    fflush(stdout);
    int received = 0;
    while (received != SIGTERM && received != SIGINT) {
        if (sigwait(signals, &received))
            continue;
        if (received == SIGHUP)
            reload_now(reload);
    }
    diagnostics(DIAGNOSTICS_INFO, "run", "%s: draining", received == SIGTERM ? "SIGTERM" : "SIGINT");
    reload_end(reload);
    int undone = server_stop(server);
    if (undone)
        diagnostics(DIAGNOSTICS_WARNING, "run", "not everything was finished in time; what is pending goes on at the next start");
    diagnostics(DIAGNOSTICS_INFO, "run", "stopped");
    return COMMAND_OK;
}

int command_run(const struct run_arguments *arguments)
{
    struct config_sources sources = {
        .file = arguments->config,
        .environment = (const char *const *)environ,
        .assignments = arguments->assignments,
        .assignment_count = arguments->assignment_count,
    };
    if (arguments->check)
        return check_configuration(&sources, false);
    take_early_signals();
    struct config started; /* the server borrows it */
    struct reload *reload;
    int error = load(&started, &sources);
    if (error)
        return error == ERR_CONFIG ? COMMAND_USAGE : COMMAND_FAILED;
    if (reload_create(&reload, &sources)) {
        config_fini(&started);
        return COMMAND_FAILED;
    }
    say_start(&started, &sources);
    raise_file_limit();
    sigset_t signals;
    block_signals(&signals);
    int status = serve(&started, reload, &signals);
    reload_destroy(reload);
    config_fini(&started);
    return status;
}

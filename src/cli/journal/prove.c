/* `spindle journal prove`: kill trials on the user's own disk.
 *
 * A trial: publish for a random time, kill, start again, connect again, and look in the files for every number that was ever acknowledged
 * and was not looked for yet. At the end a server is measured, stopped in order, and everything is counted from the beginning once more. */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/histogram.h"
#include "base/random.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "cli/journal/prove_child.h"
#include "cli/journal/prove_load.h"
#include "cli/journal/tool.h"
#include "cli/json_tree.h"
#include "queue/ledger.h"

enum { PROVE_PATH_MAX = 4000, STARTING_KILLS = 4, STARTING_MS_MAX = 30, REMOVE_FILES_MAX = 16 };

#define LOAD_LEAST_S 0.05 /* how long a server is loaded before it is killed */
#define LOAD_MOST_S  1.0
#define MEASURE_S    2.0

static const char command[] = "spindle journal prove";

struct proof {
    const struct journal_prove_arguments *arguments;
    char folder[PROVE_PATH_MAX]; /* of the trials, below --data-dir */
    char data_dir[PROVE_PATH_MAX + 16], log_path[PROVE_PATH_MAX + 16];
    bool made_parent;
    struct random_source random;
    struct prove_child child;
    struct prove_load *load;
    char problem[PROVE_PROBLEM_MAX]; /* why it could not go on; empty: it could */

    unsigned trials, starting_kills;
    struct prove_recount recount;
    uint64_t damages;
    char books_why[LEDGER_WHY_MAX]; /* the books do not balance; empty: they do */
    struct histogram ready_ns;      /* from start to ready, after a kill */
    double messages_per_s, messages_per_sync, sync_p50_s, sync_p99_s, sync_max_s;
    uint64_t syncs;
};

static volatile bool interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = true;
}

/* ---- the folder ---- */

static int refuse_folder(const char *what, const char *folder, int number)
{
    char text[TOOL_FOLDER_MAX + 64];
    snprintf(text, sizeof text, "%s %s", what, folder);
    return tool_refuse_writing(command, text, error_from_errno(number));
}

static int make_folder(struct proof *proof)
{
    const char *parent = proof->arguments->data_dir;
    proof->made_parent = mkdir(parent, 0750) == 0;
    if (!proof->made_parent && errno != EEXIST)
        return refuse_folder("cannot make", parent, errno);
    if ((size_t)snprintf(proof->folder, sizeof proof->folder, "%s/spindle-prove-XXXXXX", parent) >= sizeof proof->folder)
        return tool_refuse(command, "the name of the folder is too long");
    if (!mkdtemp(proof->folder))
        return refuse_folder("no folder can be made in", parent, errno);
    snprintf(proof->data_dir, sizeof proof->data_dir, "%s/data", proof->folder);
    snprintf(proof->log_path, sizeof proof->log_path, "%s/server.log", proof->folder);
    return COMMAND_OK;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

static void remove_folder(const struct proof *proof)
{
    nftw(proof->folder, remove_entry, REMOVE_FILES_MAX, FTW_DEPTH | FTW_PHYS);
    if (proof->made_parent)
        rmdir(proof->arguments->data_dir);
}

/* ---- trials ---- */

static void show(const struct proof *proof, const char *what)
{
    struct prove_counts counts;
    prove_load_counts(proof->load, &counts);
    terminal_progress("trial %u of %u, %s; %" PRIu64 " messages acknowledged, %" PRIu64 " lost", proof->trials + 1,
                      proof->arguments->trials, what, counts.acknowledged, proof->recount.lost);
}

static int start(struct proof *proof, bool after_kill)
{
    uint64_t begin_ns = clock_monotonic_ns();
    int error = prove_child_start(&proof->child, proof->data_dir, proof->log_path);
    if (error)
        snprintf(proof->problem, sizeof proof->problem, "the server cannot be started: %s", strerror(errno));
    else
        error = prove_child_wait_ready(&proof->child, proof->problem);
    if (!error && after_kill)
        histogram_record(&proof->ready_ns, clock_monotonic_ns() - begin_ns);
    return error;
}

/* Sometimes it is killed while it starts. */
static int start_again(struct proof *proof)
{
    while (random_below(&proof->random, STARTING_KILLS) == 0) {
        if (prove_child_start(&proof->child, proof->data_dir, proof->log_path))
            break;
        poll(NULL, 0, (int)random_below(&proof->random, STARTING_MS_MAX));
        prove_child_kill(&proof->child);
        proof->starting_kills++;
    }
    return start(proof, true);
}

static int recount(struct proof *proof, bool all)
{
    int error = prove_load_recount(proof->load, proof->data_dir, all, &proof->recount);
    proof->damages += proof->recount.damages;
    if (error)
        snprintf(proof->problem, sizeof proof->problem, "the files cannot be read: %s", error_text(error));
    return error;
}

static bool is_wrong(const struct proof *proof)
{
    return proof->recount.lost || proof->recount.invented || proof->damages || proof->books_why[0];
}

/* The books of the stream that is consumed, from the files alone. */
static int check_books(struct proof *proof)
{
    struct ledger ledger;
    struct ledger_extent extent;
    struct queue_counts counts;
    int error = ledger_load(&ledger, disk_posix(), proof->data_dir, "ingest", &extent, NULL, NULL);
    if (error) {
        snprintf(proof->problem, sizeof proof->problem, "the books cannot be read: %s", error_text(error));
        return error;
    }
    ledger_counts(&ledger, extent.next, &counts);
    if (ledger_fits(&ledger, &extent, proof->books_why) == LEDGER_FITS &&
        counts.accepted != counts.completed + counts.duplicates + counts.dead_lettered + counts.pending)
        snprintf(proof->books_why, sizeof proof->books_why, "the terms do not add up");
    ledger_fini(&ledger);
    return 0;
}

static int run_trial(struct proof *proof)
{
    show(proof, "under load");
    int error = prove_load_connect(proof->load, proof->child.mqtt_port, proof->problem);
    if (!error)
        error = prove_load_run(proof->load, random_between(&proof->random, LOAD_LEAST_S, LOAD_MOST_S), &interrupted, proof->problem);
    if (error)
        return error;
    prove_child_kill(&proof->child);
    prove_load_disconnect(proof->load);
    show(proof, "starting again");
    error = start_again(proof);
    if (!error)
        error = recount(proof, false);
    if (!error)
        error = check_books(proof);
    proof->trials += !error;
    return error;
}

/* ---- measuring ---- */

static double number_at(const struct json_tree *tree, const char *path)
{
    double value = 0;
    json_tree_number(tree, path, &value);
    return value;
}

/* The last server is loaded without being killed, asked for its syncs, and stopped in order. */
static int measure(struct proof *proof)
{
    struct prove_counts before, after;
    struct buffer page;
    terminal_progress("measuring");
    buffer_init(&page, 1 << 20);
    prove_load_counts(proof->load, &before);
    int error = prove_load_connect(proof->load, proof->child.mqtt_port, proof->problem);
    if (!error)
        error = prove_load_run(proof->load, MEASURE_S, &interrupted, proof->problem);
    prove_load_counts(proof->load, &after);
    if (!error)
        error = prove_load_settle(proof->load, proof->problem);
    if (!error && prove_child_get(&proof->child, "/api/v1/status", &page)) {
        snprintf(proof->problem, sizeof proof->problem, "the server does not answer at /api/v1/status");
        error = ERR_IO;
    }
    struct json_tree *root;
    char why[JSON_TREE_WHY_MAX];
    if (!error)
        error = json_tree_read(&root, page.data, page.length, why);
    if (!error) {
        struct prove_counts all;
        prove_load_counts(proof->load, &all);
        proof->syncs = (uint64_t)number_at(root, "journal.groups");
        proof->sync_p50_s = number_at(root, "journal.sync_s.p50");
        proof->sync_p99_s = number_at(root, "journal.sync_s.p99");
        proof->sync_max_s = number_at(root, "journal.sync_s.max");
        proof->messages_per_s = (double)(after.acknowledged - before.acknowledged) / MEASURE_S;
        proof->messages_per_sync = proof->syncs ? (double)(all.acknowledged - before.acknowledged) / (double)proof->syncs : 0;
        json_tree_free(root);
    }
    buffer_fini(&page);
    prove_load_disconnect(proof->load);
    return error ? error : prove_child_stop(&proof->child, proof->problem);
}

static int run_all(struct proof *proof)
{
    int error = start(proof, false);
    while (!error && !interrupted && !is_wrong(proof) && proof->trials < proof->arguments->trials)
        error = run_trial(proof);
    if (!error && !interrupted && !is_wrong(proof))
        error = measure(proof);
    prove_child_kill(&proof->child);
    if (!error)
        error = recount(proof, true);
    if (!error && !proof->books_why[0])
        error = check_books(proof);
    terminal_progress_end();
    return error;
}

/* ---- what is printed ---- */

static void print_json(const struct proof *proof, const struct prove_counts *counts, bool kept)
{
    struct buffer line;
    buffer_init(&line, TOOL_LINE_MAX);
    buffer_printf(&line,
                  "{\"trials\":%u,\"killed_while_starting\":%u,\"published\":%" PRIu64 ",\"acknowledged\":%" PRIu64 ",\"lost\":%" PRIu64
                  ",\"invented\":%" PRIu64 ",\"damages\":%" PRIu64 ",\"books_balance\":%s,\"recovery_s\":{\"p50\":%.6f,\"max\":%.6f}",
                  proof->trials, proof->starting_kills, counts->published, counts->acknowledged, proof->recount.lost,
                  proof->recount.invented, proof->damages, proof->books_why[0] ? "false" : "true",
                  (double)histogram_quantile(&proof->ready_ns, 0.5) / 1e9, (double)proof->ready_ns.max / 1e9);
    buffer_printf(&line,
                  ",\"sync_s\":{\"p50\":%.9f,\"p99\":%.9f,\"max\":%.9f},\"syncs\":%" PRIu64
                  ",\"messages_per_sync\":%.2f,\"messages_per_s\":%.0f,\"folder\":",
                  proof->sync_p50_s, proof->sync_p99_s, proof->sync_max_s, proof->syncs, proof->messages_per_sync, proof->messages_per_s);
    kept ? buffer_append_json_string(&line, proof->folder, strlen(proof->folder), 0) : buffer_append_text(&line, "null");
    buffer_append_text(&line, ",\"problem\":");
    const char *problem = proof->problem[0] ? proof->problem : proof->books_why;
    problem[0] ? buffer_append_json_string(&line, problem, strlen(problem), 0) : buffer_append_text(&line, "null");
    buffer_append_text(&line, "}\n");
    tool_emit(&line);
    buffer_fini(&line);
}

static void print_text(const struct proof *proof, const struct prove_counts *counts)
{
    if (proof->syncs)
        printf("sync of a group:      p50 %.3f ms, p99 %.3f ms, max %.3f ms (%" PRIu64 " syncs)\n"
               "messages a sync:      %.1f, at %.0f messages a second\n",
               proof->sync_p50_s * 1e3, proof->sync_p99_s * 1e3, proof->sync_max_s * 1e3, proof->syncs, proof->messages_per_sync,
               proof->messages_per_s);
    if (proof->ready_ns.count)
        printf("ready after a kill:   p50 %.3f s, max %.3f s\n", (double)histogram_quantile(&proof->ready_ns, 0.5) / 1e9,
               (double)proof->ready_ns.max / 1e9);
    if (proof->books_why[0])
        printf("the books do not balance: %s\n", proof->books_why);
    if (proof->recount.invented)
        printf("%" PRIu64 " messages are in the files that nobody published\n", proof->recount.invented);
    if (proof->damages)
        printf("%" PRIu64 " damaged places in the files\n", proof->damages);
    if (proof->recount.lost)
        printf("the first lost message is number %" PRIu64 "\n", proof->recount.first_lost);
    printf("%u kills under load, %u more while it was starting. A kill leaves the system's memory intact: this proves that nothing is\n"
           "acknowledged before it is written, not that the disk keeps what it has synced (docs/durability.md).\n",
           proof->trials, proof->starting_kills);
    printf("%" PRIu64 " of %" PRIu64 " acknowledged messages lost\n", proof->recount.lost, counts->acknowledged);
}

/* Returns the exit status. */
static int report(const struct proof *proof, int error)
{
    struct prove_counts counts;
    prove_load_counts(proof->load, &counts);
    bool wrong = error || is_wrong(proof), short_of = proof->trials < proof->arguments->trials;
    if (proof->arguments->json)
        print_json(proof, &counts, wrong);
    else if (!error)
        print_text(proof, &counts);
    if (error)
        fprintf(stderr, "%s: %s; the server's own words are in %s\n", command, proof->problem[0] ? proof->problem : error_text(error),
                proof->log_path);
    else if (short_of && !wrong)
        fprintf(stderr, "%s: interrupted after %u of %u trials\n", command, proof->trials, proof->arguments->trials);
    if (wrong)
        fprintf(stderr, "%s: the folder is kept: %s\n", command, proof->folder);
    else
        remove_folder(proof);
    return wrong || short_of ? COMMAND_FAILED : COMMAND_OK;
}

int command_journal_prove(const struct journal_prove_arguments *arguments)
{
    struct proof *proof = calloc(1, sizeof *proof);
    if (!proof)
        return tool_refuse(command, "%s", error_text(ERR_NO_MEMORY));
    *proof = (struct proof){.arguments = arguments, .child = {.output = -1}, .random = {clock_wall_ns() ^ (uint64_t)getpid()}};
    int status = make_folder(proof);
    if (!status && prove_load_create(&proof->load, arguments->connections, (uint32_t)arguments->payload, arguments->rate)) {
        remove_folder(proof);
        status = tool_refuse(command, "%s", error_text(ERR_NO_MEMORY));
    }
    if (!status) {
        struct sigaction action = {.sa_handler = on_interrupt};
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        int error = run_all(proof);
        status = report(proof, error);
    }
    prove_load_destroy(proof->load);
    free(proof);
    return command_finish_output(command, status);
}

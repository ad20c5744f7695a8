/* What the journal tells the metrics. */
#include "base/metrics.h"
#include "journal/journal.h"
#include "journal/stream.h"

void journal_collect(struct journal *journal, struct metrics_writer *writer)
{
    static const double bounds_s[] = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1};
    struct journal_stats stats;
    journal_stats(journal, &stats);
    metrics_sample_u64(writer, METRIC_JOURNAL_GROUPS, stats.groups, NULL);
    metrics_sample_u64(writer, METRIC_JOURNAL_BYTES, stats.bytes, NULL);
    metrics_sample_u64(writer, METRIC_JOURNAL_STALLED, stats.stalled, NULL);
    if (stats.space.free != UINT64_MAX)
        metrics_sample_u64(writer, METRIC_JOURNAL_DISK_FREE, stats.space.free, NULL);
    metrics_sample_u64(writer, METRIC_JOURNAL_DISK_FREE_MIN, stats.space.least, NULL);
    metrics_histogram_ns(writer, METRIC_JOURNAL_SYNC, stats.sync, bounds_s, sizeof bounds_s / sizeof *bounds_s, NULL);
    struct journal_stream *stream;
    for (unsigned i = 0; (stream = journal_stream_at(journal, i)); i++) {
        struct journal_stream_stats files;
        journal_stream_stats(stream, &files);
        metrics_sample_u64(writer, METRIC_JOURNAL_SEGMENTS, files.segment_count, "stream", stream->name, NULL);
        metrics_sample_u64(writer, METRIC_JOURNAL_STREAM_BYTES, files.bytes, "stream", stream->name, NULL);
        metrics_sample_u64(writer, METRIC_JOURNAL_HELD_BYTES, files.held_bytes, "stream", stream->name, NULL);
    }
}

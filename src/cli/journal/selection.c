#include "cli/journal/selection.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/command.h"
#include "cli/journal/tool.h"
#include "journal/inspect.h"
#include "mqtt/topic.h"

/* A record may reach a segment a little after its arrival, and a clock may be set back a little. */
#define CLOCK_MARGIN_NS (60 * UINT64_C(1000000000))

int selection_read(const char *command, const char *from, const char *to, const char *topic, struct selection *selection)
{
    char message[VALUE_MESSAGE_MAX];
    uint64_t now_ns = clock_wall_ns();
    struct selection read = {.to_given = to, .topic = topic};
    if (when_parse(from, now_ns, &read.from, message))
        return tool_refuse(command, "--from: %s", message);
    if (to && when_parse(to, now_ns, &read.to, message))
        return tool_refuse(command, "--to: %s", message);
    if (topic && !mqtt_topic_filter_valid(topic, strlen(topic)))
        return tool_refuse(command, "--topic: `%s` is no MQTT topic filter; `+` stands for one level, `#` for all that follow", topic);
    *selection = read;
    return COMMAND_OK;
}

bool selection_has(const struct selection *selection, const struct message *message)
{
    return (!selection->from.is_time || message->time_ns >= selection->from.time_ns) &&
           (!selection->to_given || !selection->to.is_time || message->time_ns < selection->to.time_ns) &&
           (!selection->topic || mqtt_topic_matches(selection->topic, strlen(selection->topic), message->topic, message->topic_length));
}

int selection_range(const char *folder, const struct selection *selection, uint64_t *first, uint64_t *until)
{
    *first = selection->from.offset;
    *until = selection->to_given && !selection->to.is_time ? selection->to.offset : UINT64_MAX;
    if (!selection->from.is_time && !(selection->to_given && selection->to.is_time))
        return 0;
    struct inspect_file *files = NULL;
    size_t count = 0, begin = 0;
    int error = inspect_files(disk_posix(), folder, &files, &count);
    if (error)
        return error;
    while (count && files[count - 1].state > INSPECT_ACTIVE)
        count--;
    /* What was made before the time holds nothing from then on if its follower was made before it too. */
    while (selection->from.is_time && begin + 1 < count && files[begin + 1].created_ns &&
           files[begin + 1].created_ns + CLOCK_MARGIN_NS < selection->from.time_ns)
        begin++;
    if (begin && count)
        *first = files[begin].base_offset;
    for (size_t i = count; selection->to_given && selection->to.is_time && i > 0; i--) {
        if (files[i - 1].created_ns <= selection->to.time_ns + CLOCK_MARGIN_NS)
            break;
        *until = files[i - 1].base_offset;
    }
    free(files);
    return 0;
}

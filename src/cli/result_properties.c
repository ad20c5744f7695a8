#include "cli/result_properties.h"

#include "drilling/drilling.h"
#include "mqtt/packet.h"

int result_properties_write(const struct message *result, struct buffer *out)
{
    static const char message_id[] = "message-id", replayed[] = "replayed";
    struct mqtt_slice value = {result->properties, result->properties_length};
    const char *id;
    int error = 0;
    if (value.length)
        error = mqtt_property_user(out, (struct mqtt_slice){(const uint8_t *)message_id, sizeof message_id - 1}, value);
    if (error || !topics_replay_id(result->topic, result->topic_length, &id, &value.length))
        return error;
    value.data = (const uint8_t *)id;
    return mqtt_property_user(out, (struct mqtt_slice){(const uint8_t *)replayed, sizeof replayed - 1}, value);
}

#include "cli/server_transports.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"

static void fill_listener(bool enabled, struct config_list hosts, uint32_t port, struct bus_listener *listener)
{
    *listener = (struct bus_listener){.hosts = hosts.items, .host_count = enabled ? hosts.count : 0, .port = (uint16_t)port};
}

static bool wants_tls(const struct config *config)
{
    return config->bus_tls_enabled || config->bus_websocket_tls_enabled;
}

static void fill_tls(const struct config *config, struct tls_options *options)
{
    static const enum tls_client_certificate client_certificates[] = {
        [CONFIG_CLIENT_CERTIFICATE_NONE] = TLS_CLIENT_NONE,
        [CONFIG_CLIENT_CERTIFICATE_OPTIONAL] = TLS_CLIENT_OPTIONAL,
        [CONFIG_CLIENT_CERTIFICATE_REQUIRED] = TLS_CLIENT_REQUIRED,
    };
    static const enum tls_user users[] = {
        [CONFIG_USER_FROM_COMMON_NAME] = TLS_USER_COMMON_NAME,
        [CONFIG_USER_FROM_DNS] = TLS_USER_DNS,
        [CONFIG_USER_FROM_EMAIL] = TLS_USER_EMAIL,
        [CONFIG_USER_FROM_URI] = TLS_USER_URI,
    };
    bool asks = config->bus_tls_client_certificate != CONFIG_CLIENT_CERTIFICATE_NONE;
    *options = (struct tls_options){
        .files = {[TLS_FILE_CERTIFICATE] = config->bus_tls_certificate,
                  [TLS_FILE_KEY] = config->bus_tls_key,
                  [TLS_FILE_CA] = asks ? config->bus_tls_client_ca : NULL},
        .client_certificate = client_certificates[config->bus_tls_client_certificate],
        .user_from = users[config->bus_tls_user_from],
        .only_1_3 = config->bus_tls_version_min == CONFIG_TLS_VERSION_1_3,
    };
}

void server_transports_fill(const struct config *config, struct bus_options *options)
{
    struct bus_listener *listeners = options->listeners;
    fill_listener(config->bus_tcp_enabled, config->bus_host, config->bus_port, &listeners[BUS_TCP]);
    fill_listener(config->bus_tls_enabled, config->bus_tls_host, config->bus_tls_port, &listeners[BUS_TLS]);
    fill_listener(config->bus_websocket_enabled, config->bus_websocket_host, config->bus_websocket_port, &listeners[BUS_WEBSOCKET]);
    fill_listener(config->bus_websocket_tls_enabled, config->bus_websocket_tls_host, config->bus_websocket_tls_port,
                  &listeners[BUS_WEBSOCKET_TLS]);
    options->unix_path = *config->bus_unix_path ? config->bus_unix_path : NULL;
    options->unix_mode = (unsigned)strtoul(config->bus_unix_mode, NULL, 8);
    options->websocket_path = config->bus_websocket_path;
    options->handshakes_max = config->bus_handshakes_max;
    options->handshake_timeout_ns = config_ns(config->bus_handshake_timeout_s);
    fill_tls(config, &options->tls);
}

void server_transports_reload(const struct config *config, struct bus *bus)
{
    struct tls_options options;
    if (!wants_tls(config))
        return;
    fill_tls(config, &options);
    bus_reload_tls(bus, &options);
}

void server_transports_check(const struct config *config, struct problems *problems)
{
    static const enum config_setting settings[TLS_FILES] = {
        [TLS_FILE_CERTIFICATE] = CONFIG_SETTING_bus_tls_certificate,
        [TLS_FILE_KEY] = CONFIG_SETTING_bus_tls_key,
        [TLS_FILE_CA] = CONFIG_SETTING_bus_tls_client_ca,
    };
    if (!wants_tls(config))
        return;
    struct tls_options options;
    struct tls_problem problem;
    struct tls_context *server = NULL;
    fill_tls(config, &options);
    int error = tls_context_create(&server, &options, &problem);
    enum tls_age age = error ? TLS_AGE_GOOD : tls_check_age(&options, (int64_t)(clock_wall_ns() / 1000000000u), &problem);
    tls_context_destroy(server);
    if (error == ERR_INVALID || age != TLS_AGE_GOOD) {
        enum config_setting setting = settings[problem.file];
        problems_add(problems, age == TLS_AGE_ENDS_SOON ? PROBLEM_WARNING : PROBLEM_ERROR, config->origins[setting].place, "`%s`: %s",
                     config_setting_path(setting), problem.text);
    }
}

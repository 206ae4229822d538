// Typed functions for what Swift cannot call in libmicrohttpd: variadic functions and unions.
#pragma once
#include <microhttpd.h>
#include <stdint.h>
#include <string.h>

// Reads the target as it came: percent-decoding is left to whoever wants it.
static inline size_t gw_mhd_keep_escapes(void *cls, struct MHD_Connection *connection, char *text) {
    (void)cls;
    (void)connection;
    return strlen(text);
}

// A daemon without threads and without a listening socket: its epoll descriptor is watched, and connections are
// handed to it. `owner` is passed to every callback.
static inline struct MHD_Daemon *gw_mhd_start(
    void *owner,
    MHD_AccessHandlerCallback access,
    void *(*target)(void *, const char *, struct MHD_Connection *),
    MHD_RequestCompletedCallback completed,
    MHD_NotifyConnectionCallback connection,
    size_t memory_limit,
    unsigned int connection_limit,
    unsigned int idle_seconds
) {
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0,
        NULL, NULL, access, owner,
        MHD_OPTION_URI_LOG_CALLBACK, target, owner,
        MHD_OPTION_NOTIFY_COMPLETED, completed, owner,
        MHD_OPTION_NOTIFY_CONNECTION, connection, owner,
        MHD_OPTION_UNESCAPE_CALLBACK, gw_mhd_keep_escapes, NULL,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory_limit,
        MHD_OPTION_CONNECTION_LIMIT, connection_limit,
        MHD_OPTION_CONNECTION_TIMEOUT, idle_seconds,
        MHD_OPTION_STRICT_FOR_CLIENT, 0,
        MHD_OPTION_END);
}

static inline int gw_mhd_epoll_descriptor(struct MHD_Daemon *daemon) {
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);
    return info ? info->epoll_fd : -1;
}

static inline void *gw_mhd_socket_context(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

// Bytes from the method's first to the end of the header.
static inline size_t gw_mhd_header_size(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return info ? info->header_size : 0;
}

// Has a connection closed when nothing has come for a second.
static inline void gw_mhd_hurry(struct MHD_Connection *connection) {
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
}

// True if there is work that waits for no event.
static inline int gw_mhd_must_run_now(struct MHD_Daemon *daemon) {
    MHD_UNSIGNED_LONG_LONG milliseconds = 1;
    return MHD_get_timeout(daemon, &milliseconds) == MHD_YES && milliseconds == 0;
}

// The floor under the gateway: libmicrohttpd with the gateway's flags, driven by epoll from outside as the gateway
// drives it, and nothing else. It reads a request's body, throws it away, and gives everybody the same answer.
//
// usage: bare-mhd BODY [NAME VALUE]...

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

static enum MHD_Result answer(
    void *response, struct MHD_Connection *connection, const char *target, const char *method, const char *version,
    const char *data, size_t *size, void **seen
) {
    (void)target, (void)method, (void)version, (void)data;
    if (!*seen) {  // only the header is there
        *seen = response;
        return MHD_YES;
    }
    if (*size) {
        *size = 0;
        return MHD_YES;
    }
    return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

static int listening(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int yes = 1, descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) die("socket");
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);  // accepted sockets inherit it
    if (bind(descriptor, (struct sockaddr *)&address, length) || listen(descriptor, 4096)) die("listen");
    if (getsockname(descriptor, (struct sockaddr *)&address, &length)) die("getsockname");
    *port = ntohs(address.sin_port);
    return descriptor;
}

// How long epoll_wait may sleep: -1 for ever.
static int patience(struct MHD_Daemon *daemon) {
    MHD_UNSIGNED_LONG_LONG milliseconds;
    if (MHD_get_timeout(daemon, &milliseconds) != MHD_YES) return -1;
    return milliseconds < 1000 ? (int)milliseconds : 1000;
}

int main(int count, char **arguments) {
    if (count < 2 || count % 2) {
        fprintf(stderr, "usage: bare-mhd BODY [NAME VALUE]...\n");
        return 64;
    }
    signal(SIGPIPE, SIG_IGN);

    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(arguments[1]), arguments[1], MHD_RESPMEM_PERSISTENT);
    for (int index = 2; index < count; index += 2)
        if (MHD_add_response_header(response, arguments[index], arguments[index + 1]) != MHD_YES) die(arguments[index]);

    int port, descriptor = listening(&port);
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, answer, response,
        MHD_OPTION_LISTEN_SOCKET, descriptor,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16 * 1024,
        MHD_OPTION_CONNECTION_LIMIT, 16384u,
        MHD_OPTION_CONNECTION_TIMEOUT, 120u,
        MHD_OPTION_STRICT_FOR_CLIENT, 0,
        MHD_OPTION_END);
    if (!daemon) die("MHD_start_daemon");

    // A loop of our own around libmicrohttpd's, as the gateway has one.
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, &event))
        die("epoll_ctl");
    fprintf(stderr, "listening on http://127.0.0.1:%d\n", port);
    for (;;) {
        epoll_wait(loop, &event, 1, patience(daemon));
        do MHD_run(daemon);
        while (patience(daemon) == 0);
    }
}

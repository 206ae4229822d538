// What Linux offers and Swift's Glibc module leaves out.
#pragma once
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

// epoll_data is a union; Swift sees it, but reading a packed union member costs more than this.
static inline uint64_t gw_epoll_token(const struct epoll_event *event) { return event->data.u64; }

static inline int gw_epoll_control(int epoll, int operation, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

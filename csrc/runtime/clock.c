#include "clock.h"

#include <errno.h>
#include <time.h>

#define SECOND 1000000000

int64_t apf_now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * SECOND + at.tv_nsec;
}

int64_t apf_deadline(int64_t timeout)
{
    if (timeout < 0) return -1;
    const int64_t now = apf_now();
    return timeout > INT64_MAX - now ? INT64_MAX : now + timeout;
}

void apf_cond_init(pthread_cond_t *condition)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int apf_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline)
{
    if (deadline < 0) return pthread_cond_wait(condition, lock) == 0;
    const struct timespec until = {deadline / SECOND, deadline % SECOND};
    return pthread_cond_timedwait(condition, lock, &until) != ETIMEDOUT;
}

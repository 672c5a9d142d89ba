/* clock.h - times in csrc/ are nanoseconds of CLOCK_MONOTONIC. */
#ifndef APF_CLOCK_H
#define APF_CLOCK_H

#include <pthread.h>
#include <stdint.h>

int64_t apf_now(void);
/* The deadline `timeout` ns from now; -1 (never) for a negative timeout. */
int64_t apf_deadline(int64_t timeout);
/* A condition for apf_cond_wait. */
void apf_cond_init(pthread_cond_t *condition);
/* Wait for it, under the lock, until the deadline (negative: for ever); 0 once that has passed. */
int apf_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline);

#endif

/* Gates: users enter and leave in any thread, and the owner closes the gate or locks it exclusively. The number of
 * users and the owner's state are in one atomic word, so that a user who enters and an owner who checks cannot miss
 * each other. There is no mutex: if another thread held it during a fork, it would stay locked in the child. */
#include "memory.h"

#include <sched.h>
#include <time.h>

enum { GENERATION_SHIFT = 48 };

#define USER 1ull
#define USERS 0xffffffffull
#define LOOKER (1ull << 32)
#define LOOKERS (0xffffull << 32)
#define GENERATION (0x3fffull << GENERATION_SHIFT) /* of the process that locked it */
#define LOCKED (1ull << 62)
#define CLOSED (1ull << 63)

static uint64_t generation_bits(void) { return (uint64_t)apf_fork_generation() << GENERATION_SHIFT & GENERATION; }

/* A resize is rare and takes from microseconds to seconds, so a late wake-up is acceptable. */
static void pause_a_little(void)
{
    const struct timespec little = {0, 50000};
    nanosleep(&little, NULL);
}

/* What `state` means to a user who enters: OK, CLOSED, BUSY (locked), FORKED (locked by a thread that does not exist in
 * this process). */
static int found(uint64_t state)
{
    if (state & CLOSED) return APF_CLOSED;
    if (!(state & LOCKED)) return APF_OK;
    return (state & GENERATION) == generation_bits() ? APF_BUSY : APF_FORKED;
}

static int come(apf_gate *gate, uint64_t who, int wait)
{
    uint64_t state = __atomic_load_n(&gate->state, __ATOMIC_RELAXED);
    for (;;) {
        const int code = found(state);
        if (code == APF_OK) {
            if (__atomic_compare_exchange_n(&gate->state, &state, state + who, 1, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
                return APF_OK;
        } else if (code == APF_BUSY && wait) {
            pause_a_little();
            state = __atomic_load_n(&gate->state, __ATOMIC_RELAXED);
        } else {
            return code;
        }
    }
}

int apf_gate_enter(apf_gate *gate, int wait) { return come(gate, USER, wait); }

void apf_gate_leave(apf_gate *gate) { __atomic_sub_fetch(&gate->state, USER, __ATOMIC_RELEASE); }

int apf_gate_look(apf_gate *gate, int wait) { return come(gate, LOOKER, wait); }

void apf_gate_looked(apf_gate *gate) { __atomic_sub_fetch(&gate->state, LOOKER, __ATOMIC_RELEASE); }

int apf_gate_lock(apf_gate *gate)
{
    uint64_t state = __atomic_load_n(&gate->state, __ATOMIC_RELAXED);
    for (;;) {
        const int code = found(state);
        if (code == APF_BUSY)
            pause_a_little();
        else if (code != APF_OK)
            return code;
        else if (state & USERS)
            return APF_BUSY;
        else if (state & LOOKERS)
            sched_yield();
        else if (__atomic_compare_exchange_n(&gate->state, &state, LOCKED | generation_bits(), 1, __ATOMIC_ACQUIRE,
                                             __ATOMIC_RELAXED))
            return APF_OK;
        else
            continue;
        state = __atomic_load_n(&gate->state, __ATOMIC_RELAXED);
    }
}

int apf_gate_adopt(apf_gate *gate)
{
    uint64_t state = __atomic_load_n(&gate->state, __ATOMIC_RELAXED);
    return found(state) == APF_FORKED && __atomic_compare_exchange_n(&gate->state, &state, LOCKED | generation_bits(),
                                                                     0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void apf_gate_unlock(apf_gate *gate) { __atomic_store_n(&gate->state, 0, __ATOMIC_RELEASE); }

void apf_gate_unlock_closed(apf_gate *gate) { __atomic_store_n(&gate->state, CLOSED, __ATOMIC_RELEASE); }

uint32_t apf_gate_close(apf_gate *gate)
{
    return (uint32_t)(__atomic_fetch_or(&gate->state, CLOSED, __ATOMIC_ACQ_REL) & USERS);
}

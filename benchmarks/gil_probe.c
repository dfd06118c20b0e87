/* Measures how often the GIL is held: a thread in the observed process requests it at random times.
 *
 * It sleeps for a random time, takes the GIL and releases it. If another thread holds the GIL, it waits for
 * microseconds at least; an idle GIL takes a fraction of one. The share of requests that wait is the share of
 * time that the GIL is held (random arrivals see time averages).
 *
 * Python's symbols are those of the process. Build: cc -O2 -shared -fPIC -o gil_probe.so gil_probe.c -pthread
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

extern int PyGILState_Ensure(void);
extern void PyGILState_Release(int);
extern void *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(void *);

static pthread_t thread;
static atomic_int stopping;
static double interval, threshold;
static long questions, waits;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *ask(void *unused) {
    uint64_t random = 0x9E3779B97F4A7C15ULL;
    int state = PyGILState_Ensure();
    void *self = PyEval_SaveThread();
    (void)unused;
    while (!atomic_load(&stopping)) {
        /* xorshift64* (Vigna 2016): half to one and a half times the interval */
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        double pause = interval * (0.5 + (random * 0x2545F4914F6CDD1DULL >> 11) * 0x1p-53);
        struct timespec t = {(time_t)pause, (long)((pause - (time_t)pause) * 1e9)};
        nanosleep(&t, NULL);
        double asked = now();
        PyEval_RestoreThread(self);
        double had = now();
        self = PyEval_SaveThread();
        questions++;
        waits += had - asked > threshold;
    }
    PyEval_RestoreThread(self);
    PyGILState_Release(state);
    return NULL;
}

/* Starts requests, every mean_interval seconds; a request longer than longest_idle is a wait. 0, or an errno.
 */
int probe_start(double mean_interval, double longest_idle) {
    interval = mean_interval;
    threshold = longest_idle;
    questions = waits = 0;
    atomic_store(&stopping, 0);
    return pthread_create(&thread, NULL, ask, NULL);
}

/* Stops the thread; call it without the GIL. Returns the number of requests, and of those that waited. */
void probe_stop(long *questions_out, long *waits_out) {
    atomic_store(&stopping, 1);
    pthread_join(thread, NULL);
    *questions_out = questions;
    *waits_out = waits;
}

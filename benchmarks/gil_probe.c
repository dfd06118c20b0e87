/* How often is the GIL held? A thread that asks at random times, loaded into the process that is looked at.
 *
 * It sleeps for a random time, takes the GIL and gives it back. Whoever holds the GIL makes it wait, which
 * takes microseconds at least; an idle GIL is had in a fraction of one. The part of the questions that had to
 * wait is the part of the time that the GIL was held (arrivals at random times see time averages).
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

/* Begins to ask, every mean_interval seconds; a wait is what takes longer than longest_idle. 0, or an errno.
 */
int probe_start(double mean_interval, double longest_idle) {
    interval = mean_interval;
    threshold = longest_idle;
    questions = waits = 0;
    atomic_store(&stopping, 0);
    return pthread_create(&thread, NULL, ask, NULL);
}

/* Ends it, to be called without the GIL; how many questions there were, and how many had to wait. */
void probe_stop(long *questions_out, long *waits_out) {
    atomic_store(&stopping, 1);
    pthread_join(thread, NULL);
    *questions_out = questions;
    *waits_out = waits;
}

cimport cython
from cpython.object cimport PyObject


cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass


cdef struct Cell:
    PyObject *item
    long long nbytes
    int state


# A thread that waits for room; stored on that thread's stack while it is in the list.
cdef struct Waiter:
    long long ticket
    pthread_cond_t woken
    Waiter *next


@cython.final
cdef class BatchQueue:
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t items
    cdef Waiter *waiters
    cdef Cell *cells
    cdef bint closed
    cdef bint ordered
    cdef bint hand_out_holes
    cdef long long capacity
    cdef long long largest
    cdef long long ahead
    cdef long long ahead_bytes
    cdef long long window
    cdef long long floor
    cdef long long max_bytes
    cdef long long group
    # Lowest ticket not yet delivered, one past the highest delivered, one past the last ticket of all.
    cdef long long base
    cdef long long highest
    cdef long long total
    # Who may take items, of those that give a number.
    cdef long long reader
    # Contents of the cells.
    cdef long long reserved
    cdef long long ready
    cdef long long held_bytes
    cdef long long last_nbytes
    # Statistics; the sums grow with time and are up to date as of `clock`.
    cdef long long batches
    cdef long long holes
    cdef long long waiting_items
    cdef long long waiting_limited
    cdef long long waiting_room
    cdef double started
    cdef double clock
    cdef double sum_ready
    cdef double sum_waiting_items
    cdef double sum_waiting_room

    cdef Cell *cell(self, long long ticket) noexcept nogil
    cdef void tick(self) noexcept nogil
    cdef long long room_now(self) noexcept nogil
    cdef bint admissible(self, long long ticket) noexcept nogil
    cdef bint first_in_line(self, long long ticket) noexcept nogil
    cdef bint available(self, long long limit, long long *ticket) noexcept nogil
    cdef bint ended(self, long long limit) noexcept nogil
    cdef void advance(self) noexcept nogil
    cdef void notify_items(self) noexcept nogil
    cdef void notify_room(self, bint at_once) noexcept nogil
    cdef PyObject *hand_out(self, long long ticket) noexcept nogil
    cdef int wait_item(self, long long limit, long long reader, double until, bint take, long long *ticket,
                       PyObject **item) noexcept nogil
    cdef int wait_room(self, long long ticket, double until) noexcept nogil
    cdef int next_item(self, long long limit, long long reader, double until, bint take, long long *ticket,
                       PyObject **item) except -1
    cdef int settle(self, long long ticket, int state, PyObject *item, long long nbytes) except -1

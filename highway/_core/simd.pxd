# The variant that kernels are to run, HW_PLAIN to HW_AVX512; read it before the GIL is released.
cdef int level

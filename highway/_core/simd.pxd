# The variant of the kernels, HW_PLAIN to HW_AVX512; read it before releasing the GIL.
cdef int level

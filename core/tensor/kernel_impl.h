/*
 * kernel_impl.h - the tables of the instruction sets, for kernel.c alone
 *
 * A table that this compiler cannot make, because it is for another
 * processor or its flags are missing, has no name and is passed over.
 */
#ifndef QKV_KERNEL_IMPL_H
#define QKV_KERNEL_IMPL_H
#include "tensor/kernel.h"

extern const qkv_kernels qkv_kernels_portable;
extern const qkv_kernels qkv_kernels_avx2;
extern const qkv_kernels qkv_kernels_avx512;

#endif

/*
 * random.h - random numbers that a seed makes again
 *
 * xoshiro256** (Blackman and Vigna, arXiv:1805.01407), seeded by SplitMix64.
 * The same seed gives the same numbers on every machine.
 */
#ifndef QKV_RANDOM_H
#define QKV_RANDOM_H
#include <stdint.h>

typedef struct qkv_random {
    uint64_t s[4];
} qkv_random;

void qkv_random_seed(qkv_random *r, uint64_t seed);
uint64_t qkv_random_bits(qkv_random *r);
double qkv_random_uniform(qkv_random *r);               /* in [0, 1), 53 bits */
double qkv_random_normal(qkv_random *r);                /* mean 0, sd 1 */
/* In [low, high), without bias; low when high <= low + 1. */
int64_t qkv_random_integer(qkv_random *r, int64_t low, int64_t high);

#endif

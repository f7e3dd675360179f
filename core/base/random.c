/*
 * random.c - random numbers: see random.h
 */
#include "config.h"

#include "base/random.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

void qkv_random_seed(qkv_random *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {           /* SplitMix64 */
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

uint64_t qkv_random_bits(qkv_random *r)
{
    uint64_t *s = r->s;
    const uint64_t out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double qkv_random_uniform(qkv_random *r)
{
    return (double)(qkv_random_bits(r) >> 11) * 0x1p-53;
}

double qkv_random_normal(qkv_random *r)
{
    /* Box and Muller; the second number is not kept, so that the state is
     * all there is. 1 - u is never 0. */
    const double u = 1.0 - qkv_random_uniform(r), v = qkv_random_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

int64_t qkv_random_integer(qkv_random *r, int64_t low, int64_t high)
{
    if (high <= low)
        return low;
    const uint64_t span = (uint64_t)high - (uint64_t)low;
    const uint64_t unfair = (0 - span) % span;  /* 2^64 mod span */
    uint64_t bits;
    do
        bits = qkv_random_bits(r);
    while (bits < unfair);
    return (int64_t)((uint64_t)low + bits % span);
}

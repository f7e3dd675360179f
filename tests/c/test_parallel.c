/*
 * test_parallel.c - the thread pool: every piece once, on whatever threads
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/parallel.h"

enum { MOST = 1000, THREADS = 256 };

typedef struct tally {
    int64_t n, chunk;
    atomic_int times[MOST];             /* each index was met */
    atomic_int inside[THREADS];         /* bodies with this thread, now */
    atomic_int wrong;                   /* what no body may see */
} tally;

static void count(void *context, int64_t begin, int64_t end, int thread)
{
    tally *t = context;
    if (thread < 0 || thread >= qkv_threads() || begin % t->chunk != 0
        || end <= begin || end - begin > t->chunk || end > t->n
        || (end - begin < t->chunk && end != t->n)) {
        atomic_fetch_add(&t->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&t->inside[thread], 1) != 0)
        atomic_fetch_add(&t->wrong, 1);
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&t->times[i], 1);
    atomic_fetch_sub(&t->inside[thread], 1);
}

static void check(int64_t n, int64_t chunk, int times)
{
    static tally t;
    t = (tally){.n = n, .chunk = chunk};
    for (int i = 0; i < times; i++)
        qkv_parallel(n, chunk, count, &t);
    assert_int_equal(atomic_load(&t.wrong), 0);
    for (int64_t i = 0; i < MOST; i++)
        assert_int_equal(atomic_load(&t.times[i]), i < n ? times : 0);
}

static void every_piece_once(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 100, 999, 1000};
    static const int threads[] = {1, 2, 3, 8, 2, 1};
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        qkv_set_threads(threads[t]);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            for (int64_t chunk = 1; chunk <= 1024; chunk = chunk * 3 + 1)
                check(sizes[i], chunk, 3);
    }
}

/* One loop after the other, as a forward pass has them. */
static void many_small_loops(void **state)
{
    (void)state;
    qkv_set_threads(4);
    for (int i = 0; i < 200; i++)
        check(16, 1 + i % 4, 100);
}

/* Helpers that fell asleep between the loops wake up again. */
static void after_a_pause(void **state)
{
    (void)state;
    qkv_set_threads(3);
    for (int i = 0; i < 20; i++) {
        usleep(2000);
        check(50, 1, 1);
    }
}

static void thread_counts(void **state)
{
    (void)state;
    static const int rows[][2] = {{-5, 1}, {0, 1}, {1, 1}, {2, 2}, {256, 256},
                                  {257, 256}, {1 << 30, 256}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qkv_set_threads(rows[i][0]);
        assert_int_equal(qkv_threads(), rows[i][1]);
    }
}

/* ---- loops within loops, and beside one another ---- */

static void inner(void *context, int64_t begin, int64_t end, int thread)
{
    atomic_int *sum = context;
    atomic_fetch_add(sum, (int)(end - begin) + 1000 * thread);
}

static void outer(void *context, int64_t begin, int64_t end, int thread)
{
    tally *t = context;
    for (int64_t i = begin; i < end; i++) {
        atomic_int sum = 0;
        qkv_parallel(10, 3, inner, &sum);       /* four pieces, this thread */
        if (atomic_load(&sum) != 10 + 4 * 1000 * thread)
            atomic_fetch_add(&t->wrong, 1);
        atomic_fetch_add(&t->times[i], 1);
    }
}

static void nested(void **state)
{
    (void)state;
    static tally t;
    qkv_set_threads(3);
    for (int i = 0; i < 100; i++)
        qkv_parallel(MOST, 7, outer, &t);
    assert_int_equal(atomic_load(&t.wrong), 0);
    for (int i = 0; i < MOST; i++)
        assert_int_equal(atomic_load(&t.times[i]), 100);
}

static void add_up(void *context, int64_t begin, int64_t end, int thread)
{
    _Atomic int64_t *sum = context;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(sum, i);
}

static void *loops(void *argument)
{
    intptr_t wrong = 0;
    for (int i = 0; i < 500; i++) {
        _Atomic int64_t sum = 0;
        qkv_parallel(MOST, 10, add_up, &sum);
        wrong += atomic_load(&sum) != (int64_t)MOST * (MOST - 1) / 2;
    }
    (void)argument;
    return (void *)wrong;
}

static void two_callers(void **state)
{
    (void)state;
    pthread_t other;
    void *wrong;
    qkv_set_threads(2);
    assert_int_equal(pthread_create(&other, NULL, loops, NULL), 0);
    assert_null(loops(NULL));
    assert_int_equal(pthread_join(other, &wrong), 0);
    assert_null(wrong);
}

/* A child has no helpers; it starts its own. */
static void forked(void **state)
{
    (void)state;
    qkv_set_threads(3);
    check(100, 1, 10);
    const pid_t child = fork();
    if (child == 0)
        _exit(loops(NULL) == NULL ? 0 : 1);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    check(100, 1, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_once), cmocka_unit_test(many_small_loops),
        cmocka_unit_test(after_a_pause), cmocka_unit_test(thread_counts),
        cmocka_unit_test(nested), cmocka_unit_test(two_callers),
        cmocka_unit_test(forked)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

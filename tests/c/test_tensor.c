/*
 * test_tensor.c - shapes, views, copies, conversions, writing
 *
 * The tensor t is [head 2, query 3, key 4] with values 0, 1, ... 23, so that
 * what a view must hold is plain to see; the values were printed by NumPy
 * 1.24 (t[:, -1], t.transpose(2, 0, 1), np.diagonal, np.concatenate, ...).
 * Halves are those of numpy.float16.
 */
#include "config.h"

#include "base/interrupt.h"
#include "tensors.h"

static qkv_tensor *counting(void)
{
    qkv_tensor *t = ramp("head query key", DIMS(2, 3, 4));
    for (int i = 0; i < 24; i++)
        ((float *)qkv_tensor_data(t))[i] = (float)i;
    return t;
}

/* ---- views and copies ---- */

typedef qkv_tensor *change(const qkv_tensor *t, qkv_error *err);

static qkv_tensor *whole(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_view(t, err);
}
static qkv_tensor *last_query(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_select(t, 1, -1, err);
}
static qkv_tensor *first_head(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_select(t, 0, 0, err);
}
static qkv_tensor *middle_keys(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_slice(t, 2, 1, -1, err);
}
static qkv_tensor *cut_slice(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_slice(t, 1, -99, 99, err);
}
static qkv_tensor *empty_slice(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_slice(t, 1, 2, 1, err);
}
static qkv_tensor *turned(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_transpose(t, 0, 2, err);
}
static qkv_tensor *permuted(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_permute(t, (const int[]){2, 0, 1}, err);
}
static qkv_tensor *diagonal(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_diagonal(t, 0, err);
}
static qkv_tensor *above(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_diagonal(t, 2, err);
}
static qkv_tensor *below(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_diagonal(t, -2, err);
}
static qkv_tensor *flat(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_reshape(t, DIMS(4, -1), NULL, err);
}
static qkv_tensor *turned_flat(const qkv_tensor *t, qkv_error *err)
{
    static const char *const axes[] = {"a", "b"};
    qkv_tensor *v = qkv_tensor_transpose(t, 0, 2, err);
    qkv_tensor *out = qkv_tensor_reshape(v, DIMS(2, 12), axes, err);
    qkv_tensor_release(v);
    return out;
}
static qkv_tensor *taken(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_take(t, 1, (const int64_t[]){2, 0, -1, 2}, 4, err);
}
static qkv_tensor *joined(const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *part = qkv_tensor_slice(t, 1, 0, 1, err);
    qkv_tensor *out = qkv_tensor_cat((qkv_tensor *[]){part, part}, 2, 1, err);
    qkv_tensor_release(part);
    return out;
}
static qkv_tensor *stacked(const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *a = qkv_tensor_diagonal(t, 0, err);
    qkv_tensor *b = qkv_tensor_diagonal(t, 1, err);
    qkv_tensor *out = qkv_tensor_stack((qkv_tensor *[]){a, b}, 2, 1, "layer",
                                       err);
    qkv_tensor_release(a);
    qkv_tensor_release(b);
    return out;
}
static qkv_tensor *turned_clone(const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *v = qkv_tensor_transpose(t, 1, 2, err);
    qkv_tensor *out = qkv_tensor_clone(v, err);
    qkv_tensor_release(v);
    return out;
}

static const struct {
    const char *name;
    change *make;
    bool copies;
    const char *shape;
    const float values[32];
} views[] = {
    {"view", whole, false, "f32 [head 2, query 3, key 4]",
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
      20, 21, 22, 23}},
    {"t[:, -1]", last_query, false, "f32 [head 2, key 4]",
     {8, 9, 10, 11, 20, 21, 22, 23}},
    {"t[0]", first_head, false, "f32 [query 3, key 4]",
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
    {"t[:, :, 1:-1]", middle_keys, false, "f32 [head 2, query 3, key 2]",
     {1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22}},
    {"t[:, -99:99]", cut_slice, false, "f32 [head 2, query 3, key 4]",
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
      20, 21, 22, 23}},
    {"t[:, 2:1]", empty_slice, false, "f32 [head 2, query 0, key 4]", {0}},
    {"t.transpose(2, 1, 0)", turned, false, "f32 [key 4, query 3, head 2]",
     {0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15,
      7, 19, 11, 23}},
    {"t.transpose(2, 0, 1)", permuted, false, "f32 [key 4, head 2, query 3]",
     {0, 4, 8, 12, 16, 20, 1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22, 3, 7,
      11, 15, 19, 23}},
    {"diagonal 0", diagonal, false, "f32 [head 2, query 3]",
     {0, 5, 10, 12, 17, 22}},
    {"diagonal 2", above, false, "f32 [head 2, query 2]", {2, 7, 14, 19}},
    {"diagonal -2", below, false, "f32 [head 2, query 1]", {8, 20}},
    {"reshape(4, -1)", flat, false, "f32 [4, 6]",
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
      20, 21, 22, 23}},
    {"transpose and reshape", turned_flat, true, "f32 [a 2, b 12]",
     {0, 12, 4, 16, 8, 20, 1, 13, 5, 17, 9, 21, 2, 14, 6, 18, 10, 22, 3, 15,
      7, 19, 11, 23}},
    {"t[:, [2, 0, -1, 2]]", taken, true, "f32 [head 2, query 4, key 4]",
     {8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11, 20, 21, 22, 23,
      12, 13, 14, 15, 20, 21, 22, 23, 20, 21, 22, 23}},
    {"cat", joined, true, "f32 [head 2, query 2, key 4]",
     {0, 1, 2, 3, 0, 1, 2, 3, 12, 13, 14, 15, 12, 13, 14, 15}},
    {"stack", stacked, true, "f32 [head 2, layer 2, query 3]",
     {0, 5, 10, 1, 6, 11, 12, 17, 22, 13, 18, 23}},
    {"clone of a transpose", turned_clone, true, "f32 [head 2, key 4, query 3]",
     {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 12, 16, 20, 13, 17, 21, 14, 18,
      22, 15, 19, 23}},
};

static void test_views(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(views); i++) {
        qkv_error err;
        qkv_tensor *t = counting(), *v = views[i].make(t, &err);
        assert_non_null(v);
        assert_int_equal(v->storage != t->storage, views[i].copies);
        qkv_tensor_release(t);          /* the view holds the storage */
        expect(v, &err, views[i].name, views[i].shape, views[i].values, 0);
    }
}

/* An axis of size 0 before what is selected: nothing to point at. */
static void test_empty(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = ramp("", DIMS(0, 3));
    qkv_tensor *v = qkv_tensor_select(t, 1, 2, &err);
    qkv_tensor *r = qkv_tensor_reshape(v, DIMS(-1), NULL, &err);
    qkv_tensor_release(t);
    qkv_tensor_release(v);
    expect(r, &err, "empty", "f32 [0]", NULL, 0);
}

/* ---- what is refused ---- */

static qkv_tensor *name_twice(const qkv_tensor *t, qkv_error *err)
{
    static const char *const axes[] = {"pos", "pos"};
    (void)t;
    return qkv_tensor_new(QKV_F32, DIMS(2, 2), axes, err);
}
static qkv_tensor *long_name(const qkv_tensor *t, qkv_error *err)
{
    static const char *const axes[] = {"sixteen_letters_"};
    (void)t;
    return qkv_tensor_new(QKV_F32, DIMS(2), axes, err);
}
static qkv_tensor *too_large(const qkv_tensor *t, qkv_error *err)
{
    (void)t;
    return qkv_tensor_new(QKV_F32, DIMS(INT64_MAX, 0, INT64_MAX), NULL, err);
}
static qkv_tensor *negative(const qkv_tensor *t, qkv_error *err)
{
    (void)t;
    return qkv_tensor_new(QKV_F32, DIMS(2, -1), NULL, err);
}
static qkv_tensor *nine_axes(const qkv_tensor *t, qkv_error *err)
{
    (void)t;
    return qkv_tensor_new(QKV_F32, DIMS(1, 1, 1, 1, 1, 1, 1, 1, 1), NULL, err);
}
static qkv_tensor *part_of_block(const qkv_tensor *t, qkv_error *err)
{
    (void)t;
    return qkv_tensor_new(QKV_Q4_1, DIMS(2, 33), NULL, err);
}
static qkv_tensor *outside(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_over(t->storage, 4, QKV_F32, DIMS(24), NULL, err);
}
static qkv_tensor *far_outside(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_over(t->storage, SIZE_MAX, QKV_U8, DIMS(1), NULL, err);
}
static qkv_tensor *wide_strides(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_strided(t->storage, 0, QKV_F32, DIMS(3, 2),
                              (const int64_t[]){INT64_MAX, 1}, NULL, err);
}
static qkv_tensor *query_3(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_select(t, 1, 3, err);
}
static qkv_tensor *axis_3(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_slice(t, 3, 0, 1, err);
}
static qkv_tensor *order_twice(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_permute(t, (const int[]){0, 1, 1}, err);
}
static qkv_tensor *diagonal_4(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_diagonal(t, 4, err);
}
static qkv_tensor *shape_of_25(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_reshape(t, DIMS(5, 5), NULL, err);
}
static qkv_tensor *two_open(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_reshape(t, DIMS(-1, -1), NULL, err);
}
static qkv_tensor *cat_unlike(const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *a = qkv_tensor_slice(t, 2, 0, 2, err);
    qkv_tensor *all = qkv_tensor_view(t, err);
    qkv_tensor *out = qkv_tensor_cat((qkv_tensor *[]){all, a}, 2, 0, err);
    qkv_tensor_release(a);
    qkv_tensor_release(all);
    return out;
}
static qkv_tensor *stack_taken_name(const qkv_tensor *t, qkv_error *err)
{
    qkv_tensor *v = qkv_tensor_view(t, err);
    qkv_tensor *out = qkv_tensor_stack(&v, 1, 0, "key", err);
    qkv_tensor_release(v);
    return out;
}
static qkv_tensor *to_blocks(const qkv_tensor *t, qkv_error *err)
{
    return qkv_tensor_to(t, QKV_Q8_0, err);
}
static qkv_tensor *infinite_integer(const qkv_tensor *t, qkv_error *err)
{
    (void)t;
    qkv_tensor *v = make("", DIMS(2), F(1, INFINITY));
    qkv_tensor *out = qkv_tensor_to(v, QKV_I64, err);
    qkv_tensor_release(v);
    return out;
}

static const struct {
    change *make;
    const char *message;
} refused[] = {
    {name_twice, "axis name 'pos' for axes 0 and 1"},
    {long_name, "axis name 'sixteen_letters_' is longer than 15 bytes"},
    {too_large, "f32 [9223372036854775807, 0, 9223372036854775807] is more "
                "than can be addressed"},
    {negative, "axis 1 has size -1: sizes are 0 or more"},
    {nine_axes, "9 axes: a tensor has 0 to 8"},
    {part_of_block, "rows of 33 values: q4_1 comes in blocks of 32"},
    {outside, "f32 [24] at byte 4 does not lie inside 96 bytes"},
    {far_outside, "u8 [1] at byte -1 does not lie inside 96 bytes"},
    {wide_strides, "f32 [3, 2] at byte 0 does not lie inside 96 bytes"},
    {query_3, "query 3 of 3: 0 to 2, or -3 to -1 from the end"},
    {axis_3, "there is no axis 3 in f32 [head 2, query 3, key 4]"},
    {order_twice, "axis 1 twice in an order of axes"},
    {diagonal_4, "diagonal 4 of f32 [head 2, query 3, key 4]: -2 to 3"},
    {shape_of_25, "f32 [head 2, query 3, key 4] has 24 elements; it cannot "
                  "become f32 [5, 5]"},
    {two_open, "f32 [head 2, query 3, key 4] has 24 elements; it cannot "
               "become f32 [-1, -1]"},
    {cat_unlike, "cat of f32 [head 2, query 3, key 4] and f32 [head 2, "
                 "query 3, key 2]: axis 2 differs"},
    {stack_taken_name, "axis name 'key' for axes 0 and 3"},
    {to_blocks, "f32 to q8_0: quantising is not built"},
    {infinite_integer, "inf does not fit into i64"},
};

static void test_refused(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = counting();
    for (size_t i = 0; i < COUNT(refused); i++)
        expect_error(refused[i].make(t, &err), &err, refused[i].message);
    qkv_tensor_release(t);
}

static void test_axis(void **state)
{
    static const struct {
        const char *name;
        int axis;
    } rows[] = {{"head", 0}, {"key", 2}, {"0", 0}, {"-1", 2}, {"-3", 0},
                {"", -1}, {"3", -1}, {"-4", -1}, {"heads", -1}, {"1x", -1}};
    qkv_error err;
    (void)state;
    qkv_tensor *t = counting();
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_int_equal(qkv_tensor_axis(t, rows[i].name, &err),
                         rows[i].axis);
    assert_int_equal(qkv_tensor_axis(t, "haed", &err), -1);
    assert_string_equal(err.msg, "no axis 'haed' in f32 [head 2, query 3, "
                                 "key 4]; did you mean 'head'?");
    char cut[12];
    qkv_tensor_describe(t, cut, sizeof cut);
    assert_string_equal(cut, "f32 [head 2");
    qkv_tensor_release(t);
}

/* ---- types ---- */

static const struct {
    qkv_dtype type;
    const char *shape;
    const float from[6], to[6];
} conversions[] = {
    {QKV_F32, "f32 [6]", {-1.5f, 0, 2.5f, NAN, INFINITY, 1e-42f},
                         {-1.5f, 0, 2.5f, NAN, INFINITY, 1e-42f}},
    {QKV_F16, "f16 [6]", {0.1f, 65504, 65520, -1e-7f, NAN, 2049},
              {0.0999755859375f, 65504, INFINITY, -1.1920928955078125e-7f,
               NAN, 2048}},
    {QKV_BF16, "bf16 [6]", {1.00390625f, 1.01171875f, 3e38f, -0.1f, NAN, 1},
               {1, 1.015625f, 3.00405527e38f, -0.10009765625f, NAN, 1}},
    {QKV_I32, "i32 [6]", {-2.5f, -1.5f, 0.5f, 1.5f, 2147483520, -2147483648},
              {-2, -2, 0, 2, 2147483520, -2147483648}},
    {QKV_I64, "i64 [6]", {2.5f, 3.5f, -0.5f, 9.2e18f, -9.2e18f, 0},
              {2, 4, 0, 9.2e18f, -9.2e18f, 0}},
    {QKV_U8, "u8 [6]", {0.5f, 1.5f, 255, 254.5f, -0.25f, 7},
             {0, 2, 255, 254, 0, 7}},
};

static void test_conversions(void **state)
{
    qkv_error err;
    (void)state;
    for (size_t i = 0; i < COUNT(conversions); i++) {
        qkv_tensor *t = make("", DIMS(6), conversions[i].from);
        qkv_tensor *there = qkv_tensor_to(t, conversions[i].type, &err);
        assert_non_null(there);
        qkv_tensor *back = qkv_tensor_to(there, QKV_F32, &err);
        qkv_tensor_release(t);
        expect(there, &err, "there", conversions[i].shape, conversions[i].to,
               0);
        expect(back, &err, "back", "f32 [6]", conversions[i].to, 0);
    }
}

/* What float and double cannot hold goes through copies unchanged. */
static void test_large_integers(void **state)
{
    static const int64_t values[] = {INT64_MAX, INT64_MIN, (1LL << 53) + 1};
    qkv_error err;
    (void)state;
    qkv_tensor *t = qkv_tensor_new(QKV_I64, DIMS(3), NULL, &err);
    memcpy(qkv_tensor_data(t), values, sizeof values);
    qkv_tensor *c = qkv_tensor_take(t, 0, (const int64_t[]){0, 1, 2}, 3, &err);
    assert_memory_equal(qkv_tensor_data(c), values, sizeof values);
    expect_error(qkv_tensor_to(t, QKV_I32, &err), &err,
                 "9.22337e+18 does not fit into i32");
    qkv_tensor_release(c);
    qkv_tensor_release(t);
}

/* Floats at an odd address, as in a safetensors file. */
static void test_unaligned(void **state)
{
    static const float values[] = {1.5f, -2, 3.25f};
    static unsigned char bytes[13];
    qkv_error err;
    (void)state;
    memcpy(bytes + 1, values, sizeof values);
    qkv_storage *s = qkv_storage_wrap(bytes, sizeof bytes, NULL, NULL, &err);
    qkv_tensor *t = qkv_tensor_over(s, 1, QKV_F32, DIMS(3), NULL, &err);
    qkv_storage_release(s);
    qkv_tensor *f = qkv_tensor_float(t, &err);
    assert_ptr_not_equal(f, t);
    qkv_tensor *again = qkv_tensor_float(f, &err);
    assert_ptr_equal(again, f);         /* float already: itself */
    qkv_tensor_release(again);
    qkv_tensor_release(t);
    expect(f, &err, "unaligned", "f32 [3]", values, 0);
}

/* Two rows of q8_0: scale 1 (f16 0x3c00) and bytes 0..31; scale 2, the same.
 * By hand: value = scale * byte. */
static qkv_tensor *blocks(qkv_tensor *const *none, qkv_error *err)
{
    (void)none;
    static const char *const axes[] = {"vocab", "d_model"};
    static unsigned char bytes[2 * 34];
    for (int row = 0; row < 2; row++) {
        bytes[row * 34 + 1] = row == 0 ? 0x3c : 0x40;
        for (int i = 0; i < 32; i++)
            bytes[row * 34 + 2 + i] = (unsigned char)i;
    }
    qkv_storage *s = qkv_storage_wrap(bytes, sizeof bytes, NULL, NULL, err);
    qkv_tensor *t = s == NULL ? NULL
        : qkv_tensor_over(s, 0, QKV_Q8_0, DIMS(2, 32), axes, err);
    qkv_storage_release(s);
    return t;
}

static void test_blocks(void **state)
{
    qkv_error err;
    char what[80];
    (void)state;
    qkv_tensor *w = blocks(NULL, &err);
    assert_non_null(w);
    qkv_tensor *t = qkv_tensor_transpose(w, 0, 1, &err);
    qkv_tensor *f = qkv_tensor_float(t, &err);
    qkv_tensor_describe(f, what, sizeof what);
    assert_string_equal(what, "f32 [d_model 32, vocab 2]");
    for (int i = 0; i < 64; i++)
        assert_true(element(f, i) == (double)(i / 2 * (i % 2 + 1)));
    qkv_tensor_release(f);
    f = qkv_tensor_take(w, 0, (const int64_t[]){1, 1, 0}, 3, &err);
    for (int i = 0; i < 96; i++)
        assert_true(element(f, i) == (double)(i % 32 * (i < 64 ? 2 : 1)));
    qkv_tensor_release(f);
    f = qkv_tensor_to(w, QKV_F16, &err);
    assert_true(element(f, 63) == 62.0);
    qkv_tensor_release(f);
    f = qkv_tensor_clone(w, &err);
    assert_memory_equal(qkv_tensor_data(f), qkv_tensor_data(w), 68);
    qkv_tensor_release(f);
    expect_error(qkv_tensor_select(w, 1, 0, &err), &err,
                 "one element of a row of q8_0 [vocab 2, d_model 32]: a "
                 "quantised tensor has rows and products only; convert it to "
                 "float first");
    assert_null(qkv_tensor_slice(w, 1, 0, 16, &err));
    assert_null(qkv_tensor_clone(t, &err));
    assert_null(qkv_tensor_reshape(w, DIMS(64), NULL, &err));
    assert_null(qkv_tensor_to(w, QKV_I32, &err));
    assert_false(qkv_tensor_fill(w, 0, &err));
    qkv_tensor_release(t);
    qkv_tensor_release(w);
}

/* ---- writing ---- */

static void test_writing(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = ramp("a b", DIMS(2, 3));
    qkv_tensor *row = make("", DIMS(3), F(1, 2, 3));
    assert_true(qkv_tensor_copy(t, row, &err));
    qkv_tensor *column = qkv_tensor_select(t, 1, 1, &err);
    assert_true(qkv_tensor_fill(column, -7, &err));
    assert_true(qkv_tensor_set(t, (const int64_t[]){1, 2}, 0.5, &err));
    assert_false(qkv_tensor_copy(row, t, &err));
    assert_string_equal(err.msg, "f32 [a 2, b 3] does not broadcast to "
                                 "f32 [3]");
    row->read_only = true;
    assert_false(qkv_tensor_fill(row, 0, &err));
    assert_string_equal(err.msg, "f32 [3] is read-only; change a clone");
    qkv_tensor *wide = qkv_tensor_strided(t->storage, 0, QKV_F32, DIMS(5, 3),
                                          (const int64_t[]){0, 1}, NULL, &err);
    assert_false(qkv_tensor_fill(wide, 0, &err));
    qkv_tensor_release(wide);
    qkv_tensor_release(column);
    qkv_tensor_release(row);
    expect(t, &err, "written", "f32 [a 2, b 3]", F(1, -7, 3, 1, -7, 0.5f), 0);
}

/* t[1:] = t[:-1] and t[:-1] = t[1:] as if through a copy. */
static void test_overlap(void **state)
{
    qkv_error err;
    (void)state;
    for (int way = 0; way < 2; way++) {
        qkv_tensor *t = make("", DIMS(5), F(0, 1, 2, 3, 4));
        qkv_tensor *low = qkv_tensor_slice(t, 0, 0, 4, &err);
        qkv_tensor *high = qkv_tensor_slice(t, 0, 1, 5, &err);
        assert_true(way == 0 ? qkv_tensor_copy(high, low, &err)
                             : qkv_tensor_copy(low, high, &err));
        qkv_tensor_release(low);
        qkv_tensor_release(high);
        expect(t, &err, "overlap", "f32 [5]",
               way == 0 ? F(0, 0, 1, 2, 3) : F(1, 2, 3, 4, 4), 0);
    }
}

/* A value that does not fit leaves an integer tensor as it was. */
static void test_misfit(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = qkv_tensor_zeros(QKV_U8, DIMS(3), NULL, &err);
    qkv_tensor *v = make("", DIMS(3), F(1, 2, 256));
    assert_false(qkv_tensor_copy(t, v, &err));
    assert_string_equal(err.msg, "256 does not fit into u8");
    assert_false(qkv_tensor_set(t, (const int64_t[]){0}, (double)NAN, &err));
    assert_false(qkv_tensor_fill(t, -1, &err));
    qkv_tensor_release(v);
    expect(t, &err, "untouched", "u8 [3]", F(0, 0, 0), 0);
}

/* ---- memory, Ctrl-C ---- */

static qkv_tensor *much(qkv_tensor *const *none, qkv_error *err)
{
    (void)none;
    qkv_tensor *t = blocks(NULL, err), *v = NULL, *f = NULL, *out = NULL;
    if (t != NULL)
        v = qkv_tensor_transpose(t, 0, 1, err);
    if (v != NULL)
        f = qkv_tensor_float(v, err);
    if (f != NULL)
        out = qkv_tensor_stack((qkv_tensor *[]){f, f}, 2, 0, "layer", err);
    qkv_tensor_release(t);
    qkv_tensor_release(v);
    qkv_tensor_release(f);
    t = out != NULL ? qkv_tensor_cat(&out, 1, 0, err) : NULL;
    qkv_tensor_release(out);
    out = t != NULL
        ? qkv_tensor_take(t, 1, (const int64_t[]){3, 4}, 2, err) : NULL;
    qkv_tensor_release(t);
    return out;
}

static void test_memory(void **state)
{
    (void)state;
    sweep_memory(blocks, (qkv_tensor *[]){NULL});
    sweep_memory(much, (qkv_tensor *[]){NULL});
}

static void test_interrupt(void **state)
{
    qkv_error err;
    (void)state;
    qkv_tensor *t = counting();
    qkv_interrupt();
    expect_error(qkv_tensor_clone(t, &err), &err, "interrupted");
    qkv_interrupt_clear();
    qkv_tensor_release(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_views), TEST(test_empty), TEST(test_refused),
        TEST(test_axis), TEST(test_conversions), TEST(test_large_integers),
        TEST(test_unaligned), TEST(test_blocks), TEST(test_writing),
        TEST(test_overlap), TEST(test_misfit), TEST(test_memory),
        TEST(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

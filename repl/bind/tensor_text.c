/*
 * tensor_text.c - tensors as text: one line, or their elements
 *
 * The line: f32 [head 9, query 15, key 15]  mean 0.067 +- 0.18  [0, 1], and
 * how many elements are NaN or infinite; a few elements are shown themselves.
 * t:print() shows matrices of aligned numbers, the middle of long axes left
 * out.
 */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "repl/bind/tensor_impl.h"
#include "tensor/reduce.h"

enum { FEW = 8, NUMBER_ROOM = 32 };

/* ---- one line ---- */

/* An element, short: at most 4 digits. */
static void short_number(char *out, const qkv_tensor *t, const int64_t *index)
{
    const double x = qkv_tensor_get(t, index);
    if (isnan(x))
        snprintf(out, NUMBER_ROOM, "nan");
    else
        snprintf(out, NUMBER_ROOM, qkv_is_float(t->dtype) ? "%.4g" : "%.0f",
                 x);
}

/* {{1, 2}, {3, 4}} */
static void add_elements(luaL_Buffer *b, const qkv_tensor *t, int axis,
                         int64_t *index)
{
    char number[NUMBER_ROOM];
    if (axis == t->n_dims) {
        short_number(number, t, index);
        luaL_addstring(b, number);
        return;
    }
    luaL_addchar(b, '{');
    for (index[axis] = 0; index[axis] < t->shape[axis]; index[axis]++) {
        luaL_addstring(b, index[axis] > 0 ? ", " : "");
        add_elements(b, t, axis + 1, index);
    }
    luaL_addchar(b, '}');
}

static void add_statistics(luaL_Buffer *b, const qkv_tensor *t,
                           const qkv_summary *s)
{
    char text[128];
    if (s->count == s->n_nan + s->n_inf)
        text[0] = '\0';
    else if (qkv_is_float(t->dtype))
        snprintf(text, sizeof text, "  mean %.3g ± %.3g  [%.3g, %.3g]",
                 s->mean, s->sd, s->min, s->max);
    else
        snprintf(text, sizeof text, "  [%.0f, %.0f]", s->min, s->max);
    luaL_addstring(b, text);
    if (s->n_nan > 0) {
        snprintf(text, sizeof text, "  %lld nan", (long long)s->n_nan);
        luaL_addstring(b, text);
    }
    if (s->n_inf > 0) {
        snprintf(text, sizeof text, "  %lld inf", (long long)s->n_inf);
        luaL_addstring(b, text);
    }
}

static int l_tensor_tostring(lua_State *L)
{
    void **slot = luaL_checkudata(L, 1, QKV_TENSOR);
    const qkv_tensor *t = *slot;
    int64_t index[QKV_MAX_DIMS] = {0};
    char what[256];
    if (t == NULL) {
        lua_pushliteral(L, "tensor (closed)");
        return 1;
    }
    qkv_tensor_describe(t, what, sizeof what);
    const int64_t count = qkv_tensor_count(t);
    qkv_summary s = {0};
    qkv_error err;
    const bool plain = !qkv_is_quantised(t->dtype);
    if (plain && count > FEW && !qkv_summarise(&s, t, &err))
        return qkv_raise(L, &err);
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, what);
    if (plain && count > FEW) {
        add_statistics(&b, t, &s);
    } else if (plain) {
        luaL_addstring(&b, "  ");
        add_elements(&b, t, 0, index);
    }
    luaL_pushresult(&b);
    return 1;
}

/* ---- matrices ---- */

/* What t:print() shows: the numbers of a part of a tensor, row-major. */
typedef struct page {
    int n_dims;
    int64_t shape[QKV_MAX_DIMS];    /* of the part */
    int64_t gap[QKV_MAX_DIMS];      /* where elements are left out; -1: none */
    int64_t skipped[QKV_MAX_DIMS];  /* how many */
    double *values;
    int64_t count;
    const char *format;             /* of width, precision, value */
    int width, precision;
} page;

/* Replace the tensor on top by its first and last elements along an axis. */
static const qkv_tensor *push_ends(lua_State *L, const qkv_tensor *t, int axis,
                                   int64_t limit)
{
    const int64_t head = (limit + 1) / 2, size = t->shape[axis];
    int64_t *indices = lua_newuserdatauv(L, (size_t)limit * sizeof *indices,
                                         0);
    for (int64_t i = 0; i < limit; i++)
        indices[i] = i < head ? i : size - limit + i;
    qkv_error err;
    qkv_push_tensor(L, qkv_tensor_take(t, axis, indices, limit, &err), &err);
    lua_replace(L, -3);
    lua_pop(L, 1);
    return qkv_check_tensor(L, -1);
}

/* The part of t that is shown, as numbers in memory that is pushed. */
static void check_page(lua_State *L, page *p, const qkv_tensor *t,
                       int64_t limit)
{
    qkv_error err;
    int64_t index[QKV_MAX_DIMS] = {0};
    p->n_dims = t->n_dims;
    lua_pushvalue(L, 1);
    for (int i = 0; i < p->n_dims; i++) {
        p->skipped[i] = t->shape[i] - limit;
        p->gap[i] = p->skipped[i] > 0 ? (limit + 1) / 2 : -1;
        if (p->skipped[i] > 0)
            t = push_ends(L, t, i, limit);
        p->shape[i] = t->shape[i];
    }
    if (qkv_is_quantised(t->dtype)) {
        qkv_push_tensor(L, qkv_tensor_float(t, &err), &err);
        t = qkv_check_tensor(L, -1);
    }
    p->count = qkv_tensor_count(t);
    p->values = lua_newuserdatauv(L, (size_t)(p->count + 1)
                                  * sizeof *p->values, 0);
    for (int64_t k = 0; k < p->count; k++) {
        p->values[k] = qkv_tensor_get(t, index);
        for (int i = p->n_dims - 1; i >= 0 && ++index[i] == p->shape[i]; i--)
            index[i] = 0;
    }
}

static void write_number(char *out, const page *p, double x)
{
    if (isnan(x))               /* printf may write -nan */
        snprintf(out, NUMBER_ROOM, "%*s", p->width, "nan");
    else
        snprintf(out, NUMBER_ROOM, p->format, p->width, p->precision, x);
}

/* One format for all: whole numbers bare, others with four digits of the
 * largest, and an exponent where that says nothing. */
static void choose_format(page *p)
{
    double largest = 0;
    bool whole = true;
    for (int64_t k = 0; k < p->count; k++) {
        const double x = fabs(p->values[k]);
        if (isfinite(x) && x > largest)
            largest = x;
        whole = whole && (!isfinite(x) || x == floor(x));
    }
    p->format = "%*.*f";
    p->precision = 0;
    if (largest >= 1e7 || (!whole && largest < 1e-3)) {
        p->format = "%*.*e";
        p->precision = 3;
    } else if (!whole) {
        p->precision = largest < 10 ? 4 : largest < 100 ? 3
            : largest < 1000 ? 2 : 1;
    }
    p->width = 0;
    int width = 0;
    for (int64_t k = 0; k < p->count; k++) {
        char number[NUMBER_ROOM];
        write_number(number, p, p->values[k]);
        const int own = (int)strlen(number);
        width = own > width ? own : width;
    }
    p->width = width;
}

/* A row of the last axis, from values on. */
static void add_row(luaL_Buffer *b, const page *p, const double *values)
{
    char number[NUMBER_ROOM];
    const int last = p->n_dims - 1;
    const int64_t n = p->n_dims > 0 ? p->shape[last] : 1;
    for (int64_t i = 0; i < n; i++) {
        if (i > 0)
            luaL_addstring(b, "  ");
        if (p->n_dims > 0 && i == p->gap[last])
            luaL_addstring(b, "…  ");
        write_number(number, p, values[i]);
        luaL_addstring(b, number);
    }
    luaL_addchar(b, '\n');
}

/* "[head 3]" above each matrix of a larger tensor. */
static void add_title(luaL_Buffer *b, const qkv_tensor *t, const page *p,
                      const int64_t *index)
{
    char text[64];
    luaL_addchar(b, '[');
    for (int i = 0; i < p->n_dims - 2; i++) {
        const bool past = p->gap[i] >= 0 && index[i] >= p->gap[i];
        snprintf(text, sizeof text, "%s%s%s%lld", i > 0 ? ", " : "",
                 t->axis[i], t->axis[i][0] != '\0' ? " " : "",
                 (long long)(index[i] + (past ? p->skipped[i] : 0)));
        luaL_addstring(b, text);
    }
    luaL_addstring(b, "]\n");
}

static void add_pages(luaL_Buffer *b, const qkv_tensor *t, const page *p)
{
    int64_t index[QKV_MAX_DIMS] = {0};
    const int row_axis = p->n_dims - 2;
    const int64_t n = p->n_dims > 0 ? p->shape[p->n_dims - 1] : 1;
    for (int64_t k = 0; k < p->count; k += n) {
        if (p->n_dims > 2 && index[row_axis] == 0)
            add_title(b, t, p, index);
        if (row_axis >= 0 && index[row_axis] == p->gap[row_axis])
            luaL_addstring(b, "…\n");
        add_row(b, p, p->values + k);
        for (int i = row_axis; i >= 0 && ++index[i] == p->shape[i]; i--)
            index[i] = 0;
    }
}

QKV_DOC(tensor_print, "t:print([{limit=}])",
    "Print the elements as aligned numbers, one matrix after the other. Of an\n"
    "axis longer than the limit (8) only the first and last are shown.\n"
    "> qkv.eye(3):print()\n"
    "> qkv.arange(100):print{limit = 4}");
static int l_tensor_print(lua_State *L)
{
    static const char *const options[] = {"limit", NULL};
    const qkv_tensor *t = qkv_check_tensor(L, 1);
    char what[256];
    page p;
    qkv_check_nargs(L, 2);
    qkv_check_options(L, 2, options);
    const lua_Integer limit = qkv_option_integer(L, 2, "limit", 8);
    if (limit < 1 || limit > 100000)
        return luaL_error(L, "option 'limit': 1 to 100000 expected, got %I",
                          (LUAI_UACINT)limit);
    check_page(L, &p, t, limit);
    choose_format(&p);
    lua_getglobal(L, "print");      /* which a notebook may have replaced */
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    qkv_tensor_describe(t, what, sizeof what);
    luaL_addstring(&b, what);
    luaL_addchar(&b, '\n');
    add_pages(&b, t, &p);
    luaL_buffsub(&b, 1);            /* print ends the last line */
    luaL_pushresult(&b);
    lua_call(L, 1, 0);
    return 0;
}

/* ---- tables ---- */

static const qkv_bind_row methods[] = {
    QKV_ROW("print", tensor_print),
    QKV_ROW_END};

static const luaL_Reg metamethods[] = {{"__tostring", l_tensor_tostring},
                                       {NULL, NULL}};

void qkv_bind_tensor_text(lua_State *L)
{
    qkv_bind_class(L, "tensor", methods, metamethods);
}

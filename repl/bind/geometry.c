/*
 * geometry.c - likeness of rows, nearest rows, principal components
 */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "probes/neighbours.h"
#include "probes/pca.h"
#include "repl/bind/bind.h"

/* ---- check helpers ---- */

/* An axis by option `along`: by name or number; -1: no such option. */
static int option_axis(lua_State *L, int index, const qkv_tensor *t)
{
    lua_getfield(L, index, "along");
    const int axis = qkv_bind_axis(L, lua_gettop(L), t);
    lua_pop(L, 1);
    return axis;
}

/* Two vectors give a number, else [n, m]. One argument: against itself. */
static int alike(lua_State *L, qkv_likeness how)
{
    static const char *const options[] = {"along", NULL};
    qkv_check_nargs(L, 3);
    luaL_checkany(L, 1);
    if (lua_isnoneornil(L, 2)) {
        lua_settop(L, 3);
        lua_pushvalue(L, 1);
        lua_replace(L, 2);
    }
    qkv_check_options(L, 3, options);
    const qkv_tensor *a = qkv_to_tensor(L, 1), *b = qkv_to_tensor(L, 2);
    const int along = option_axis(L, 3, a), last = a->n_dims - 1;
    qkv_error err;
    if (along >= 0)             /* the vectors lie along the last other axis */
        return qkv_push_value(L, qkv_alike_pairs(how, a, b, along == last
                                                 ? last - 1 : last, &err),
                              &err);
    if (a->n_dims == 1 && b->n_dims == 1)
        return qkv_push_value(L, qkv_alike_pairs(how, a, b, 0, &err), &err);
    return qkv_push_tensor(L, qkv_alike_rows(how, a, b, &err), &err);
}

/* ---- functions ---- */

QKV_DOC(qkv_cosine, "qkv.cosine(a [, b] [, {along=}]) -> tensor or number",
    "Cosine of each row of a [n, d] with each row of b [m, d] -> [n, m]; b is\n"
    "a unless given. Two vectors give a number. along: an axis; a and b have\n"
    "one shape, and the vectors with the same index of it are compared. A row\n"
    "of zeros has no direction: nan.\n"
    "> qkv.cosine({1, 0}, {1, 0}) == 1\n"
    "> qkv.cosine(qkv.eye(3)):sum() == 3\n"
    "> qkv.cosine({{1, 0}, {2, 2}}, {{0, 1}, {3, 3}}, {along = 0}):near{0, 1}");
static int l_qkv_cosine(lua_State *L)
{
    return alike(L, QKV_COSINE);
}

QKV_DOC(qkv_dot, "qkv.dot(a [, b] [, {along=}]) -> tensor or number",
    "Dot products, as qkv.cosine.\n"
    "> qkv.dot({1, 2}, {3, 4}) == 11");
static int l_qkv_dot(lua_State *L)
{
    return alike(L, QKV_DOT);
}

QKV_DOC(qkv_correlation,
    "qkv.correlation(a [, b] [, {along=}]) -> tensor or number",
    "Pearson's r, as qkv.cosine; nan for a constant row.\n"
    "> qkv.correlation({1, 2, 3}, {5, 6, 7}) > 0.9999\n"
    "> qkv.correlation({1, 2, 3}, {3, 2, 1}) < -0.9999");
static int l_qkv_correlation(lua_State *L)
{
    return alike(L, QKV_CORRELATION);
}

/* {{index=, score=}, ...} of row i. */
static void push_records(lua_State *L, const qkv_tensor *scores,
                         const qkv_tensor *indices, int64_t i)
{
    const int64_t k = scores->shape[1];
    lua_createtable(L, (int)k, 0);
    for (int64_t j = 0; j < k; j++) {
        const int64_t at[] = {i, j};
        lua_createtable(L, 0, 2);
        qkv_push_element(L, indices, at);
        lua_setfield(L, -2, "index");
        qkv_push_element(L, scores, at);
        lua_setfield(L, -2, "score");
        lua_rawseti(L, -2, j + 1);
    }
}

QKV_DOC(qkv_nearest,
    "qkv.nearest(x, query [, {k=, metric=}]) -> list of {index=, score=}",
    "The k rows (10) of x [n, d] nearest to a vector, best first; for a\n"
    "query [m, d] a list of such lists. metric: \"cosine\" (default), \"dot\",\n"
    "or \"l2\", a distance, of which the smallest is the best.\n"
    "> qkv.nearest(qkv.eye(4), {0, 1, 0, 0}, {k = 1})[1].index == 1\n"
    "> qkv.nearest({{0, 0}, {5, 5}}, {4, 5}, {metric = \"l2\"})[1].score == 1");
static int l_qkv_nearest(lua_State *L)
{
    static const char *const options[] = {"k", "metric", NULL};
    static const char *const words[] = {"cosine", "dot", "l2", NULL};
    static const qkv_likeness metrics[] = {QKV_COSINE, QKV_DOT, QKV_L2};
    qkv_check_nargs(L, 3);
    qkv_check_options(L, 3, options);
    const lua_Integer k = qkv_option_integer(L, 3, "k", 10);
    const char *metric = qkv_option_string(L, 3, "metric", words[0]);
    int how = 0;
    while (words[how] != NULL && strcmp(words[how], metric) != 0)
        how++;
    if (words[how] == NULL)
        return luaL_error(L, "option 'metric': cosine, dot or l2 expected, "
                          "got '%s'", metric);
    const qkv_tensor *x = qkv_to_tensor(L, 1), *query = qkv_to_tensor(L, 2);
    void **scores = qkv_push_empty(L, QKV_TENSOR);
    void **where = qkv_push_empty(L, QKV_TENSOR);
    qkv_error err;
    qkv_tensor *indices = NULL;
    *scores = qkv_nearest(&indices, metrics[how], x, query, k, &err);
    *where = indices;
    if (*scores == NULL)
        return qkv_raise(L, &err);
    if (query->n_dims == 1) {
        push_records(L, *scores, indices, 0);
        return 1;
    }
    const int64_t m = query->shape[0];
    lua_createtable(L, (int)m, 0);
    for (int64_t i = 0; i < m; i++) {
        push_records(L, *scores, indices, i);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ---- principal components: a Lua table of tensors ---- */

#define QKV_PCA_CLASS "qkv.pca"

QKV_DOC(qkv_pca, "qkv.pca(x [, {k=}]) -> pca",
    "The first k principal components (2) of points x [n, d]: an object with\n"
    "scores, components, variance, ratio and mean. The largest loading of\n"
    "each component is positive.\n"
    "> p = qkv.pca{{0, 0}, {1, 1}, {2, 2.1}}\n"
    "> p.ratio[0] > 0.99\n"
    "> p.scores.shape[2] == 2");
static int l_qkv_pca(lua_State *L)
{
    static const char *const options[] = {"k", NULL};
    static const char *const fields[] = {"mean", "components", "scores",
                                         "variance", "ratio"};
    void **slots[5];
    qkv_check_nargs(L, 2);
    qkv_check_options(L, 2, options);
    const qkv_tensor *x = qkv_to_tensor(L, 1);
    const bool plane = x->n_dims == 2 && x->shape[0] > 2 && x->shape[1] > 1;
    const lua_Integer k = qkv_option_integer(L, 2, "k", plane ? 2 : 1);
    lua_createtable(L, 0, 5);
    luaL_setmetatable(L, QKV_PCA_CLASS);
    for (int i = 0; i < 5; i++) {
        slots[i] = qkv_push_empty(L, QKV_TENSOR);
        lua_setfield(L, -2, fields[i]);
    }
    qkv_pca pca;
    qkv_error err;
    if (!qkv_pca_fit(&pca, x, k, &err))
        return qkv_raise(L, &err);
    *slots[0] = pca.mean;
    *slots[1] = pca.components;
    *slots[2] = pca.scores;
    *slots[3] = pca.variance;
    *slots[4] = pca.ratio;
    qkv_bind_pressure(L);
    return 1;
}

QKV_DOC(pca_scores, "p.scores -> tensor", "The points in the components: "
    "[n, comp].\n> qkv.pca(qkv.eye(3)).scores.shape[1] == 3");
QKV_DOC(pca_components, "p.components -> tensor", "Unit vectors, the largest "
    "variance first: [comp, d].\n"
    "> qkv.pca(qkv.eye(3)).components:matmul(qkv.ones(3)):abs():max() < 1e-5");
QKV_DOC(pca_variance, "p.variance -> tensor", "The variance along each "
    "component, with n - 1: [comp].\n> qkv.pca{{0}, {2}}.variance[0] == 2");
QKV_DOC(pca_ratio, "p.ratio -> tensor", "Its part of the whole variance of "
    "x: [comp].\n> qkv.pca{{0}, {2}}.ratio[0] == 1");
QKV_DOC(pca_mean, "p.mean -> tensor", "The mean of the points, which is "
    "subtracted first: [d].\n> qkv.pca{{0}, {2}}.mean[0] == 1");

QKV_DOC(pca_project, "p:project(y) -> tensor",
    "Other points y [m, d], or one vector, in the same components.\n"
    "> p = qkv.pca(qkv.randn(9, 4, {seed = 1}))\n"
    "> p:project(p.mean):abs():max() < 1e-6");
static int l_pca_project(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    qkv_check_nargs(L, 2);
    const qkv_tensor *y = qkv_to_tensor(L, 2);
    lua_getfield(L, 1, "mean");
    lua_getfield(L, 1, "components");
    const qkv_tensor *mean = qkv_check_tensor(L, -2);
    const qkv_tensor *components = qkv_check_tensor(L, -1);
    qkv_error err;
    return qkv_push_tensor(L, qkv_pca_project(y, mean, components, &err),
                           &err);
}

static int l_pca_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "ratio");
    const qkv_tensor *ratio = qkv_check_tensor(L, -1);
    lua_getfield(L, 1, "components");
    const qkv_tensor *components = qkv_check_tensor(L, -1);
    luaL_Buffer b;
    char text[64];
    luaL_buffinit(L, &b);
    snprintf(text, sizeof text, "pca: %lld of %lld components, variance",
             (long long)components->shape[0], (long long)components->shape[1]);
    luaL_addstring(&b, text);
    for (int64_t i = 0; i < ratio->shape[0] && i < 8; i++) {
        snprintf(text, sizeof text, "%s%.1f %%", i > 0 ? ", " : " ",
                 100 * qkv_tensor_get(ratio, &i));
        luaL_addstring(&b, text);
    }
    if (ratio->shape[0] > 8)
        luaL_addstring(&b, ", ...");
    luaL_pushresult(&b);
    return 1;
}

/* ---- tables ---- */

static const qkv_bind_row functions[] = {
    QKV_ROW("cosine", qkv_cosine),
    QKV_ROW("dot", qkv_dot),
    QKV_ROW("correlation", qkv_correlation),
    QKV_ROW("nearest", qkv_nearest),
    QKV_ROW("pca", qkv_pca),
    QKV_ROW_END};

static const qkv_bind_row pca_methods[] = {
    QKV_FIELD("scores", pca_scores),
    QKV_FIELD("components", pca_components),
    QKV_FIELD("variance", pca_variance),
    QKV_FIELD("ratio", pca_ratio),
    QKV_FIELD("mean", pca_mean),
    QKV_ROW("project", pca_project),
    QKV_ROW_END};

static const luaL_Reg pca_metamethods[] = {{"__tostring", l_pca_tostring},
                                           {NULL, NULL}};

void qkv_bind_geometry(lua_State *L)
{
    qkv_bind_functions(L, "qkv", functions);
    qkv_bind_class(L, "pca", pca_methods, pca_metamethods);
}

/*
 * linalg.c - factorisations and linear systems
 *
 * Signs are fixed (core/tensor/linalg.h): in every singular or eigenvector
 * the element of largest absolute value is positive.
 */
#include "config.h"

#include "repl/bind/bind.h"
#include "tensor/linalg.h"

/* The matrix at 1, made of a table if it is one; stays on the stack. */
static const qkv_tensor *check_matrix(lua_State *L)
{
    qkv_check_nargs(L, 1);
    return qkv_to_tensor(L, 1);
}

QKV_DOC(qkv_svd, "qkv.svd(a) -> u, s, vt",
    "Singular values: a [m, n] = u [m, r] diag(s [r]) vt [r, n], r the\n"
    "smaller of m and n, s falling.\n"
    "> select(2, qkv.svd{{3, 0}, {0, 4}}):near{4, 3}");
static int l_qkv_svd(lua_State *L)
{
    const qkv_tensor *a = check_matrix(L);
    void **slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = qkv_push_empty(L, QKV_TENSOR);
    qkv_tensor *u, *s, *vt;
    qkv_error err;
    if (!qkv_svd(&u, &s, &vt, a, &err))
        return qkv_raise(L, &err);
    *slots[0] = u;
    *slots[1] = s;
    *slots[2] = vt;
    return 3;
}

/* Push the two results of a factorisation of the matrix at 1. */
static int factor(lua_State *L, bool (*fn)(qkv_tensor **, qkv_tensor **,
                                           const qkv_tensor *, qkv_error *))
{
    const qkv_tensor *a = check_matrix(L);
    void **first = qkv_push_empty(L, QKV_TENSOR);
    void **second = qkv_push_empty(L, QKV_TENSOR);
    qkv_tensor *p, *q;
    qkv_error err;
    if (!fn(&p, &q, a, &err))
        return qkv_raise(L, &err);
    *first = p;
    *second = q;
    return 2;
}

QKV_DOC(qkv_eigh, "qkv.eigh(a) -> w, v",
    "Eigenvalues w [n], falling, and eigenvectors, the columns of v [n, n],\n"
    "of a symmetric matrix: a = v diag(w) v'.\n"
    "> qkv.eigh{{2, 1}, {1, 2}}:near({3, 1}, 1e-5)");
static int l_qkv_eigh(lua_State *L)
{
    return factor(L, qkv_eigh);
}

QKV_DOC(qkv_qr, "qkv.qr(a) -> q, r",
    "a [m, n] = q [m, k] r [k, n], columns of q orthonormal, r upper\n"
    "triangular with a diagonal that is not negative.\n"
    "> select(2, qkv.qr{{0, 2}, {3, 0}}):near({{3, 0}, {0, 2}}, 1e-5)");
static int l_qkv_qr(lua_State *L)
{
    return factor(L, qkv_qr);
}

QKV_DOC(qkv_cholesky, "qkv.cholesky(a) -> l",
    "a = l l' of a symmetric positive definite matrix, l lower triangular.\n"
    "> qkv.cholesky{{4, 0}, {0, 9}}:near{{2, 0}, {0, 3}}");
static int l_qkv_cholesky(lua_State *L)
{
    const qkv_tensor *a = check_matrix(L);
    qkv_error err;
    return qkv_push_tensor(L, qkv_cholesky(a, &err), &err);
}

QKV_DOC(qkv_solve, "qkv.solve(a, b) -> x",
    "x with a x = b; b is [n] or [n, k]. A singular a is an error.\n"
    "> qkv.solve({{2, 0}, {0, 4}}, {2, 2}):near{1, 0.5}");
static int l_qkv_solve(lua_State *L)
{
    qkv_check_nargs(L, 2);
    const qkv_tensor *a = qkv_to_tensor(L, 1), *b = qkv_to_tensor(L, 2);
    qkv_error err;
    return qkv_push_tensor(L, qkv_solve(a, b, &err), &err);
}

QKV_DOC(qkv_lstsq, "qkv.lstsq(a, b) -> x",
    "The x of least norm that makes |a x - b| least; b is [m] or [m, k].\n"
    "> qkv.lstsq({{1}, {1}}, {1, 3}):near({2}, 1e-5)");
static int l_qkv_lstsq(lua_State *L)
{
    qkv_check_nargs(L, 2);
    const qkv_tensor *a = qkv_to_tensor(L, 1), *b = qkv_to_tensor(L, 2);
    qkv_error err;
    return qkv_push_tensor(L, qkv_lstsq(a, b, &err), &err);
}

static const qkv_bind_row functions[] = {
    QKV_ROW("svd", qkv_svd),
    QKV_ROW("eigh", qkv_eigh),
    QKV_ROW("qr", qkv_qr),
    QKV_ROW("cholesky", qkv_cholesky),
    QKV_ROW("solve", qkv_solve),
    QKV_ROW("lstsq", qkv_lstsq),
    QKV_ROW_END};

void qkv_bind_linalg(lua_State *L)
{
    qkv_bind_functions(L, "qkv", functions);
}

/*
 * pca.c - principal components: see pca.h
 */
#include "config.h"

#include "probes/pca.h"

#include <math.h>
#include <string.h>

#include "base/interrupt.h"
#include "tensor/blas.h"
#include "tensor/linalg.h"

/* Singular values of [n, d] take about n d min(n, d) steps of LAPACK, which
 * Ctrl-C cannot stop; over this many the Gram matrix is used. */
#define SVD_MOST 2e8

void qkv_pca_reset(qkv_pca *pca)
{
    qkv_tensor_release(pca->mean);
    qkv_tensor_release(pca->components);
    qkv_tensor_release(pca->scores);
    qkv_tensor_release(pca->variance);
    qkv_tensor_release(pca->ratio);
    *pca = (qkv_pca){0};
}

static bool check_points(const qkv_tensor *x, int64_t k, qkv_error *err)
{
    char what[160];
    qkv_tensor_describe(x, what, sizeof what);
    if (x->n_dims != 2)
        return qkv_fail(err, QKV_ESHAPE, "pca of %s: points [n, d] expected",
                        what);
    const int64_t n = x->shape[0], d = x->shape[1];
    const int64_t most = n - 1 < d ? n - 1 : d;
    if (n < 2 || d < 1)
        return qkv_fail(err, QKV_ESHAPE, "pca of %s: two points at least",
                        what);
    return (k >= 1 && k <= most)
        || qkv_fail(err, QKV_EINVAL, "%lld components of %s: 1 to %lld",
                    (long long)k, what, (long long)most);
}

/* mean [d] of x [n, d], which becomes x - mean; by strips of columns, so that
 * memory is read in order. */
static bool centre(float *mean, float *x, int64_t n, int64_t d, qkv_error *err)
{
    enum { STRIP = 64 };
    for (int64_t from = 0; from < d; from += STRIP) {
        const int64_t width = d - from < STRIP ? d - from : STRIP;
        double sum[STRIP] = {0};
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < width; j++)
                sum[j] += (double)x[i * d + from + j];
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < width; j++) {
                float *value = &x[i * d + from + j];
                if (!isfinite(*value))
                    return qkv_fail(err, QKV_EINVAL, "pca: row %lld, column "
                                    "%lld is %f: numbers expected",
                                    (long long)i, (long long)(from + j),
                                    (double)*value);
                *value = (float)((double)*value - sum[j] / (double)n);
            }
        for (int64_t j = 0; j < width; j++)
            mean[from + j] = (float)(sum[j] / (double)n);
        if (!qkv_check(err))
            return false;
    }
    return true;
}

static double squares(const float *x, int64_t n, int64_t step)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i * step] * (double)x[i * step];
    return sum;
}

/* components [k, d] = the first rows of vt, where x = u s vt. */
static bool by_svd(float *components, const qkv_tensor *x, int64_t k,
                   qkv_error *err)
{
    qkv_tensor *vt;
    if (!qkv_svd(NULL, NULL, &vt, x, err))
        return false;
    memcpy(components, qkv_tensor_data(vt),
           (size_t)(k * x->shape[1]) * sizeof *components);
    qkv_tensor_release(vt);
    return true;
}

/* gram = x' x [d, d], or x x' [n, n] when that is smaller. */
static qkv_tensor *gram_of(const qkv_tensor *x, qkv_error *err)
{
    const int64_t n = x->shape[0], d = x->shape[1], r = n < d ? n : d;
    const float *data = qkv_tensor_data(x);
    qkv_tensor *gram = qkv_tensor_new(QKV_F32, 2, (int64_t[]){r, r}, NULL,
                                      err);
    if (gram == NULL
        || qkv_gemm(d <= n, d > n, r, r, d <= n ? n : d, 1, data, d, data, d,
                    0, qkv_tensor_data(gram), r, err))
        return gram;
    qkv_tensor_release(gram);
    return NULL;
}

/* *found: are the first k components well above rounding? If not, nothing is
 * written, and singular values must tell. */
static bool by_gram(bool *found, float *components, const qkv_tensor *x,
                    int64_t k, qkv_error *err)
{
    const int64_t n = x->shape[0], d = x->shape[1], r = n < d ? n : d;
    qkv_tensor *gram = gram_of(x, err), *values = NULL, *vectors = NULL;
    bool good = gram != NULL && qkv_eigh(&values, &vectors, gram, err);
    if (good) {
        const float *w = qkv_tensor_data(values);
        const float *v = qkv_tensor_data(vectors);      /* columns [r, r] */
        *found = w[k - 1] > 1e-5F * w[0];
        if (*found && d <= n)
            for (int64_t i = 0; i < k; i++)
                for (int64_t j = 0; j < d; j++)
                    components[i * d + j] = v[j * r + i];
        else if (*found)        /* component i = x' u_i, made a unit below */
            good = qkv_gemm(true, false, k, d, n, 1, v, r,
                            qkv_tensor_data(x), d, 0, components, d, err);
    }
    qkv_tensor_release(gram);
    qkv_tensor_release(values);
    qkv_tensor_release(vectors);
    return good;
}

/* Length 1, and the largest loading positive. */
static void fix_rows(float *components, int64_t k, int64_t d)
{
    for (int64_t i = 0; i < k; i++) {
        float *row = components + i * d;
        int64_t largest = 0;
        for (int64_t j = 1; j < d; j++)
            if (fabsf(row[j]) > fabsf(row[largest]))
                largest = j;
        const double length = sqrt(squares(row, d, 1));
        const double scale = (row[largest] < 0 ? -1 : 1) / length;
        for (int64_t j = 0; j < d && length > 0; j++)
            row[j] = (float)((double)row[j] * scale);
    }
}

static bool find_components(float *components, const qkv_tensor *x, int64_t k,
                            qkv_error *err)
{
    const int64_t n = x->shape[0], d = x->shape[1];
    bool found = false;
    if ((double)n * (double)d * (double)(n < d ? n : d) > SVD_MOST
        && !by_gram(&found, components, x, k, err))
        return false;
    if (!found && !by_svd(components, x, k, err))
        return false;
    fix_rows(components, k, d);
    return true;
}

/* All results but the components and scores' values, empty. */
static bool make_results(qkv_pca *pca, const qkv_tensor *x, int64_t k,
                         qkv_error *err)
{
    const int64_t n = x->shape[0], d = x->shape[1];
    const char *point = strcmp(x->axis[0], "comp") != 0 ? x->axis[0] : "";
    const char *value = strcmp(x->axis[1], "comp") != 0 ? x->axis[1] : "";
    const char *const comp = "comp";
    pca->mean = qkv_tensor_new(QKV_F32, 1, &d, &value, err);
    pca->components = qkv_tensor_new(QKV_F32, 2, (int64_t[]){k, d},
                                     (const char *[]){comp, value}, err);
    pca->scores = qkv_tensor_new(QKV_F32, 2, (int64_t[]){n, k},
                                 (const char *[]){point, comp}, err);
    pca->variance = qkv_tensor_new(QKV_F32, 1, &k, &comp, err);
    pca->ratio = qkv_tensor_new(QKV_F32, 1, &k, &comp, err);
    return pca->mean && pca->components && pca->scores && pca->variance
        && pca->ratio;
}

static bool fit(qkv_pca *pca, qkv_tensor *x, int64_t k, qkv_error *err)
{
    const int64_t n = x->shape[0], d = x->shape[1];
    float *data = qkv_tensor_data(x), *components, *scores;
    if (!make_results(pca, x, k, err)
        || !centre(qkv_tensor_data(pca->mean), data, n, d, err)
        || !find_components(qkv_tensor_data(pca->components), x, k, err))
        return false;
    components = qkv_tensor_data(pca->components);
    scores = qkv_tensor_data(pca->scores);
    if (!qkv_gemm(false, true, n, k, d, 1, data, d, components, d, 0, scores,
                  k, err))
        return false;
    float *variance = qkv_tensor_data(pca->variance);
    float *ratio = qkv_tensor_data(pca->ratio);
    const double total = squares(data, n * d, 1);
    for (int64_t i = 0; i < k; i++) {
        const double own = squares(scores + i, n, k);
        variance[i] = (float)(own / (double)(n - 1));
        ratio[i] = (float)(own / total);
    }
    return true;
}

bool qkv_pca_fit(qkv_pca *pca, const qkv_tensor *x, int64_t k, qkv_error *err)
{
    *pca = (qkv_pca){0};
    if (!check_points(x, k, err))
        return false;
    qkv_tensor *copy = qkv_tensor_to(x, QKV_F32, err);
    const bool good = copy != NULL && fit(pca, copy, k, err);
    qkv_tensor_release(copy);
    if (!good)
        qkv_pca_reset(pca);
    return good;
}

static bool check_fit(const qkv_tensor *y, const qkv_tensor *mean,
                      const qkv_tensor *components, qkv_error *err)
{
    if (mean->n_dims == 1 && components->n_dims == 2 && y->n_dims >= 1
        && y->n_dims <= 2 && components->shape[1] == mean->shape[0]
        && y->shape[y->n_dims - 1] == mean->shape[0])
        return true;
    char what[160], parts[160];
    qkv_tensor_describe(y, what, sizeof what);
    qkv_tensor_describe(components, parts, sizeof parts);
    return qkv_fail(err, QKV_ESHAPE, "projection of %s on components %s: as "
                    "many columns expected", what, parts);
}

/* y - mean, f32 of our own, in place. */
static void subtract_mean(qkv_tensor *y, const qkv_tensor *mean)
{
    float *data = qkv_tensor_data(y);
    const float *m = qkv_tensor_data(mean);
    const int64_t d = mean->shape[0], count = qkv_tensor_count(y);
    for (int64_t i = 0; i < count; i++)
        data[i] -= m[i % d];
}

qkv_tensor *qkv_pca_project(const qkv_tensor *y, const qkv_tensor *mean,
                            const qkv_tensor *components, qkv_error *err)
{
    if (!check_fit(y, mean, components, err))
        return NULL;
    const int64_t k = components->shape[0], d = components->shape[1];
    const int64_t rows = y->n_dims == 2 ? y->shape[0] : 1;
    const bool clash = strcmp(y->axis[0], "comp") == 0;
    qkv_tensor *centred = qkv_tensor_to(y, QKV_F32, err);
    qkv_tensor *m = centred != NULL ? qkv_tensor_float(mean, err) : NULL;
    qkv_tensor *c = m != NULL ? qkv_tensor_float(components, err) : NULL;
    qkv_tensor *out = NULL;
    if (c != NULL)
        out = y->n_dims == 1
            ? qkv_tensor_new(QKV_F32, 1, &k, (const char *[]){"comp"}, err)
            : qkv_tensor_new(QKV_F32, 2, (int64_t[]){rows, k},
                             (const char *[]){clash ? "" : y->axis[0],
                                              "comp"}, err);
    if (out != NULL) {
        subtract_mean(centred, m);
        if (!qkv_gemm(false, true, rows, k, d, 1, qkv_tensor_data(centred), d,
                      qkv_tensor_data(c), d, 0, qkv_tensor_data(out), k,
                      err)) {
            qkv_tensor_release(out);
            out = NULL;
        }
    }
    qkv_tensor_release(centred);
    qkv_tensor_release(m);
    qkv_tensor_release(c);
    return out;
}

/*
 * csv.h - tables of numbers as text: .csv and .tsv
 *
 * Written: one row a line, numbers with nine digits (a float32 survives); a
 * tensor of one dimension is one column. Read: numbers, "nan", "inf", empty
 * cells (NaN); a first line that is not numbers is a header and is skipped;
 * every line must have the same number of cells; blank lines at the end do not
 * count. Quotes as in RFC 4180. A table without numbers is an error.
 */
#ifndef QKV_CSV_H
#define QKV_CSV_H
#include "tensor/tensor.h"

/* f32 [row, col]. */
qkv_tensor *qkv_csv_load(const char *path, char separator, qkv_error *err);
bool qkv_csv_save(const char *path, const qkv_tensor *t, char separator,
                  qkv_error *err);

#endif

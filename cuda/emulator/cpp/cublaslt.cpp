// The part of cublasLt that the products call: column-major C = alpha op(A) op(B) + beta C with f32 sums,
// for f32 and bf16, by three loops.
#include "threads.h"

#include <vector>

namespace {

enum Type : int { F32 = 0, BF16 = 14 };
enum Status : int { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

struct Description {
    int transposed_a = 0, transposed_b = 0;
};
struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t leading;
};
struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

float value_at(const void *matrix, int type, size_t at) {
    if (type == F32) return static_cast<const float *>(matrix)[at];
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(matrix)[at]);
}

struct Product {
    Description description;
    float alpha, beta;
    const void *a, *b, *c;
    void *d;
    Layout la, lb, lc, ld;

    void run() const {
        size_t inner = description.transposed_a ? la.rows : la.cols;
        std::vector<float> column(inner);
        for (size_t j = 0; j < ld.cols; j++) {
            for (size_t k = 0; k < inner; k++)
                column[k] = value_at(
                    b, lb.type,
                    description.transposed_b ? j + k * lb.leading : k + j * lb.leading);
            for (size_t i = 0; i < ld.rows; i++) {
                float sum = 0;
                for (size_t k = 0; k < inner; k++) {
                    size_t at = description.transposed_a ? k + i * la.leading : i + k * la.leading;
                    sum += value_at(a, la.type, at) * column[k];
                }
                float result = alpha * sum;
                if (beta != 0) result += beta * value_at(c, lc.type, i + j * lc.leading);
                size_t at = i + j * ld.leading;
                if (ld.type == F32)
                    static_cast<float *>(d)[at] = result;
                else
                    static_cast<__nv_bfloat16 *>(d)[at] = __float2bfloat16(result);
            }
        }
    }
};

} // namespace

extern "C" {

int cublasLtCreate(void **handle) { return *handle = new int(0), SUCCESS; }
int cublasLtDestroy(void *handle) { return delete static_cast<int *>(handle), SUCCESS; }
size_t cublasLtGetVersion() { return 130100; }
int cublasLtMatmulDescCreate(void **out, int, int) { return *out = new Description, SUCCESS; }
int cublasLtMatmulDescDestroy(void *d) { return delete static_cast<Description *>(d), SUCCESS; }
int cublasLtMatmulDescSetAttribute(void *d, int attribute, const void *value, size_t) {
    auto &description = *static_cast<Description *>(d);
    int number;
    memcpy(&number, value, sizeof(number));
    if (attribute == 3) description.transposed_a = number; // TRANSA
    if (attribute == 4) description.transposed_b = number; // TRANSB
    return attribute == 3 || attribute == 4 ? SUCCESS : NOT_SUPPORTED;
}
int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (type != F32 && type != BF16) return NOT_SUPPORTED;
    return *out = new Layout{type, rows, cols, ld}, SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void *l) { return delete static_cast<Layout *>(l), SUCCESS; }
int cublasLtMatmulPreferenceCreate(void **out) { return *out = new int(0), SUCCESS; }
int cublasLtMatmulPreferenceDestroy(void *p) { return delete static_cast<int *>(p), SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t) { return SUCCESS; }
int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *,
                                   int num_wanted, Heuristic *out, int *num_found) {
    if (num_wanted < 1) return INVALID_VALUE;
    // Two, so that there is something to choose from; both are the three loops.
    *num_found = num_wanted < 2 ? 1 : 2;
    for (int at = 0; at < *num_found; at++) out[at] = Heuristic{};
    return SUCCESS;
}
int cublasLtMatmul(void *, void *description, const void *alpha, const void *a, void *la,
                   const void *b, void *lb, const void *beta, const void *c, void *lc, void *d,
                   void *ld, const void *, void *, size_t, void *stream) {
    Product product{*static_cast<Description *>(description),
                    *static_cast<const float *>(alpha),
                    *static_cast<const float *>(beta),
                    a,
                    b,
                    c,
                    d,
                    *static_cast<Layout *>(la),
                    *static_cast<Layout *>(lb),
                    *static_cast<Layout *>(lc),
                    *static_cast<Layout *>(ld)};
    emulator::emulator_submit(stream, [product] { product.run(); });
    return SUCCESS;
}

} // extern "C"

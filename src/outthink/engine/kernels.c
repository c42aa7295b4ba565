/* What the engine does per token and torch has no one operation for: attention over pages, rotary writes, norms, gates
 * and draws.  Compiled where it runs (see native.py); attention.py, plain.py and sampler.py say the same in torch.
 *
 * Vectors are 16 lanes of a compiler extension, so one text serves AVX-512, AVX2 and NEON.  A page of keys is stored
 * transposed, [head_dim][16 tokens]: the scores of a page are one vector, and no sum runs across lanes.
 * Every result is a function of its own row alone, in one order of operations, whatever else is computed beside it. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 16 /* pages between two corrections of the running maximum */

typedef float vec __attribute__((vector_size(64), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4)));
typedef float oct __attribute__((vector_size(32), aligned(4)));
typedef int32_t ioct __attribute__((vector_size(32), aligned(4)));
typedef uint16_t half __attribute__((vector_size(32), aligned(2)));
typedef uint32_t wide __attribute__((vector_size(64)));
#define INLINE static inline __attribute__((always_inline))

INLINE vec all(float x) { return (vec){} + x; }
INLINE vec load(const void *p, long i, int bf16) {
    if (!bf16) return *(const vec *)((const float *)p + i);
    return (vec)(__builtin_convertvector(*(const half *)((const uint16_t *)p + i), wide) << 16);
}
INLINE float one(const void *p, long i, int bf16) {
    union { uint32_t bits; float x; } u;
    if (!bf16) return ((const float *)p)[i];
    u.bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    return u.x;
}
INLINE uint16_t rounded(float x) { /* to bfloat16, nearest even; NaN stays NaN */
    union { float x; uint32_t bits; } u = {x};
    if (x != x) return 0x7fc0;
    return (u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16;
}
INLINE void put(void *p, long i, float x, int bf16) {
    if (bf16) ((uint16_t *)p)[i] = rounded(x);
    else ((float *)p)[i] = x;
}
INLINE oct higher(oct a, oct b) {
    ioct more = b > a;
    return (oct)(((ioct)b & more) | ((ioct)a & ~more));
}
INLINE float highest(vec v) { /* a number where there is one: NaN is never higher */
    union { vec all; oct half[2]; } u = {v};
    oct m = higher(u.half[0], u.half[1]);
    float out = m[0];
    for (int i = 1; i < LANES / 2; i++) out = m[i] > out ? m[i] : out;
    return out;
}
INLINE float total(vec v) {
    union { vec all; oct half[2]; } u = {v};
    oct s = u.half[0] + u.half[1];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
INLINE vec power(vec x) { /* e^x, about 1 ulp for x <= 0; 0 below -87, -infinity included */
    vec y = x * 1.44269504f;
    ivec small = y < -126.0f;
    y = (vec)((ivec)y & ~small); /* no infinities from here on */
    ivec whole = __builtin_convertvector(y - 0.5f, ivec); /* towards zero: y <= 0 */
    vec f = (y - __builtin_convertvector(whole, vec)) * 0.693147181f;
    vec p = 1.0f + f * (1.0f + f * (0.5f + f * (0.166666667f + f * (0.0416666667f + f * (0.00833333333f + f * 0.00138888889f)))));
    vec scale = (vec)((whole + 127) << 23);
    return (vec)((ivec)(p * scale) & ~small);
}
INLINE float powered(float x) { return power(all(x))[0]; }

/* --- attention: partial results are (out, lse); going on from one is merging with it --------------------------------- */

typedef struct {
    const void *keys, *values; /* of one layer: [pages, kv, width, 16] and [pages, kv, 16, width] */
    const int32_t *table;      /* [rows of pages, columns] */
    const float *queries;      /* [n, heads, width], scaled */
    const int32_t *seen;       /* [n]: how many tokens from position 0 on each query sees */
    float *out, *lse;          /* [n, heads, width], [n, heads] */
    long columns;
    int heads, kv, width, bf16, window; /* a query sees the last `window` of those tokens; 0: all */
} Attention;

/* Queries v[0..queries-1] (indices of [n, heads]) over pages first..last-1 of `pages`, all with key head `head`. */
INLINE void visit(const Attention *a, const long *v, const int *seen, const int32_t *pages, int first, int last, int head,
                  const int queries, const int parts, const int bf16) {
    const int width = parts * LANES;
    const int chunk = parts % 4 == 0 ? 4 : parts % 3 == 0 ? 3 : parts % 2 == 0 ? 2 : 1;
    float peak[4], weight[4]; /* of a partial result, out is the mean: its weight is 1 at its own lse */
    for (int j = 0; j < queries; j++) {
        peak[j] = a->lse[v[j]];
        weight[j] = peak[j] == -INFINITY ? 0 : 1;
    }
    for (int block = first; block < last; block += BLOCK) {
        int end = block + BLOCK < last ? block + BLOCK : last;
        vec scores[4][BLOCK], most[4];
        float turn[4];
        for (int j = 0; j < queries; j++) most[j] = all(-INFINITY);
        if (queries == 1) { /* four pages at once, or one addition would wait for the other */
            const float *q = a->queries + v[0] * width;
            for (int c = block; c < end; c += 4) {
                const int many = end - c < 4 ? end - c : 4;
                long at[4];
                vec s[4] = {all(0), all(0), all(0), all(0)};
                for (int k = 0; k < 4; k++) at[k] = ((long)pages[k < many ? c + k : c] * a->kv + head) * width * LANES;
                for (int i = 0; i < width; i++)
                    for (int k = 0; k < 4; k++) s[k] += q[i] * load(a->keys, at[k] + i * LANES, bf16);
                for (int k = 0; k < many; k++) scores[0][c - block + k] = s[k];
            }
        } else {
            for (int c = block; c < end; c += 2) { /* two pages for each value of a query that is read */
                const int many = end - c < 2 ? 1 : 2;
                long one = ((long)pages[c] * a->kv + head) * width * LANES;
                long two = ((long)pages[c + many - 1] * a->kv + head) * width * LANES;
                vec s[4] = {all(0), all(0), all(0), all(0)}, t[4] = {all(0), all(0), all(0), all(0)};
                for (int i = 0; i < width; i++) {
                    vec k = load(a->keys, one + i * LANES, bf16), l = load(a->keys, two + i * LANES, bf16);
                    for (int j = 0; j < queries; j++) {
                        float q = a->queries[v[j] * width + i];
                        s[j] += q * k;
                        t[j] += q * l;
                    }
                }
                for (int j = 0; j < queries; j++) {
                    scores[j][c - block] = s[j];
                    scores[j][c - block + many - 1] = many == 2 ? t[j] : s[j];
                }
            }
        }
        const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        for (int j = 0; j < queries; j++) {
            for (int c = block; c < end; c++) {
                vec s = scores[j][c - block];
                if (a->window || seen[j] < (c + 1) * LANES) {
                    ivec hidden = lane >= seen[j] - c * LANES;
                    if (a->window) hidden |= lane < seen[j] - a->window - c * LANES;
                    scores[j][c - block] = s = (vec)(((ivec)s & ~hidden) | ((ivec)all(-INFINITY) & hidden));
                }
                ivec more = s > most[j];
                most[j] = (vec)(((ivec)s & more) | ((ivec)most[j] & ~more));
            }
            float now = highest(most[j]);
            now = peak[j] > now ? peak[j] : now;
            vec sum = all(0);
            for (int c = 0; c < end - block; c++) {
                scores[j][c] = now == -INFINITY ? all(0) : power(scores[j][c] - now);
                sum += scores[j][c];
            }
            turn[j] = weight[j] > 0 ? powered(peak[j] - now) : 0;
            weight[j] = weight[j] * turn[j] + total(sum);
            peak[j] = now;
        }
        int tokens = 0; /* pages beyond what was written hold anything, so they are not even multiplied by zero */
        for (int j = 0; j < queries; j++) tokens = seen[j] > tokens ? seen[j] : tokens;
        for (int part = 0; part < parts; part += chunk) {
            vec sum[4][4];
            for (int j = 0; j < queries; j++)
                for (int k = 0; k < chunk; k++) sum[j][k] = turn[j] * *(vec *)(a->out + v[j] * width + (part + k) * LANES);
            for (int c = block; c < end; c++) {
                long at = ((long)pages[c] * a->kv + head) * width * LANES + part * LANES;
                int count = tokens - c * LANES < LANES ? tokens - c * LANES : LANES;
                for (int t = 0; t < count; t++) {
                    vec x[4];
                    for (int k = 0; k < chunk; k++) x[k] = load(a->values, at + t * width + k * LANES, bf16);
                    for (int j = 0; j < queries; j++) {
                        float p = ((const float *)&scores[j][c - block])[t];
                        for (int k = 0; k < chunk; k++) sum[j][k] += p * x[k];
                    }
                }
            }
            for (int j = 0; j < queries; j++)
                for (int k = 0; k < chunk; k++) *(vec *)(a->out + v[j] * width + (part + k) * LANES) = sum[j][k];
        }
    }
    for (int j = 0; j < queries; j++) {
        if (first >= last) break;
        for (int k = 0; k < parts; k++) *(vec *)(a->out + v[j] * width + k * LANES) *= weight[j] > 0 ? 1 / weight[j] : 0;
        a->lse[v[j]] = weight[j] > 0 ? peak[j] + logf(weight[j]) : -INFINITY;
    }
}

#define CALL(queries, parts, bf16) visit(a, v, seen, pages, first, last, head, queries, parts, bf16)
#define TYPES(queries, parts) if (a->bf16) CALL(queries, parts, 1); else CALL(queries, parts, 0)
#define CASE(parts)                                         \
    case parts:                                             \
        if (queries == 4) { TYPES(4, parts); }              \
        else if (queries == 2) { TYPES(2, parts); }         \
        else { TYPES(1, parts); }                           \
        break;

static void visited(const Attention *a, const long *v, const int *seen, const int32_t *pages, int first, int last,
                    int head, int queries) {
    switch (a->width / LANES) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(8) CASE(16) }
}

/* A task is five numbers: queries row0..row1-1 over pages first..last-1 of a row of the table.
 * Here: vectors `from`..`to`-1 of the (row1 - row0) * group that share a key head. */
static void work(const Attention *a, const int32_t *task, int head, int from, int to) {
    const int group = a->heads / a->kv;
    for (int i = from, queries; i < to; i += queries) {
        int most = 0, least = INT32_MAX, seen[4];
        long v[4];
        queries = to - i >= 4 ? 4 : to - i >= 2 ? 2 : 1;
        for (int j = 0; j < queries; j++) {
            long row = task[0] + (i + j) / group;
            v[j] = row * a->heads + head * group + (i + j) % group;
            seen[j] = a->seen[row];
            most = seen[j] > most ? seen[j] : most;
            least = seen[j] < least ? seen[j] : least;
        }
        int first = a->window && least > a->window ? (least - a->window) / LANES : 0;
        int last = (most + LANES - 1) / LANES;
        first = first > task[3] ? first : task[3];
        last = last < task[4] ? last : task[4];
        visited(a, v, seen, a->table + task[2] * a->columns, first, last, head, queries);
    }
}

/* Phases of tasks: those of a phase run side by side, so no two of them may have a query in common. */
#define TILE 32
void attend(const float *queries, const void *keys, const void *values, const int32_t *table, const int32_t *seen,
            const int32_t *tasks, const int32_t *phases, float *out, float *lse, long phase_count, long rows,
            long columns, long heads, long kv, long width, long bf16, long window) {
    Attention a = {keys,           values,     table,   queries,    seen,      out,        lse,
                   columns,        (int)heads, (int)kv, (int)width, (int)bf16, (int)window};
    const int group = (int)(heads / kv);
    memset(out, 0, rows * heads * width * sizeof(float));
    for (long i = 0; i < rows * heads; i++) lse[i] = -INFINITY;
#pragma omp parallel if (rows * heads > 32)
    for (long phase = 0; phase < phase_count; phase++) {
        long items = 0;
        for (int t = phases[phase]; t < phases[phase + 1]; t++)
            items += ((tasks[5 * t + 1] - tasks[5 * t]) * group + TILE - 1) / TILE * kv;
        int t = phases[phase];
        long before = 0;
#pragma omp for schedule(monotonic : dynamic, 1)
        for (long item = 0; item < items; item++) { /* a thread's items come in order, so t only moves on */
            for (;; t++) {
                long here = ((tasks[5 * t + 1] - tasks[5 * t]) * group + TILE - 1) / TILE * kv;
                if (item < before + here) break;
                before += here;
            }
            int vectors = (tasks[5 * t + 1] - tasks[5 * t]) * group, tile = (int)((item - before) / kv) * TILE;
            work(&a, tasks + 5 * t, (int)((item - before) % kv), tile, tile + TILE < vectors ? tile + TILE : vectors);
        }
    }
}

/* --- what stands between the products -------------------------------------------------------------------------------- */

/* x += delta, then out = x / rms(x) * gain. x, gain: float32; delta (or null) and out: float32 or bfloat16. */
void norm(float *x, const void *delta, const float *gain, void *out, long rows, long size, float eps, long bf16) {
#pragma omp parallel for if (rows * size > 65536)
    for (long r = 0; r < rows; r++) {
        float *row = x + r * size;
        vec squares = all(0);
        long i = 0;
        float rest = 0;
        for (; i + LANES <= size; i += LANES) {
            vec v = *(vec *)(row + i);
            if (delta) *(vec *)(row + i) = v = v + load(delta, r * size + i, bf16);
            squares += v * v;
        }
        for (; i < size; i++) {
            if (delta) row[i] += one(delta, r * size + i, bf16);
            rest += row[i] * row[i];
        }
        float scale = 1 / sqrtf((total(squares) + rest) / size + eps);
        for (i = 0; i < size; i++) put(out, r * size + i, row[i] * scale * gain[i], bf16);
    }
}

static void turned(const float *x, const float *cosine, const float *sine, float scale, long size, float *out) {
    for (long i = 0; i < size / 2; i++) {
        float first = x[i], second = x[i + size / 2];
        out[i] = (first * cosine[i] - second * sine[i]) * scale;
        out[i + size / 2] = (second * cosine[i] + first * sine[i]) * scale;
    }
}

static void head_of(const void *qkv, long at, const float *bias, const float *gain, long size, float eps, long bf16,
                    float *out) {
    float squares = 0;
    for (long i = 0; i < size; i++) {
        out[i] = one(qkv, at + i, bf16) + (bias ? bias[i] : 0);
        squares += out[i] * out[i];
    }
    if (!gain) return;
    float scale = 1 / sqrtf(squares / size + eps);
    for (long i = 0; i < size; i++) out[i] *= scale * gain[i];
}

/* Splits qkv [rows, (heads + 2 kv) size] into rotated, scaled queries [rows, heads, width] and what is written to pages.
 * width is size rounded up to whole vectors, with zeros; bias and the gains of queries' and keys' norms may be null.
 * slots [rows]: 16 * page + offset, negative for rows that write nothing. */
void spread(const void *qkv, const float *bias, const float *q_gain, const float *k_gain, const float *cosine,
            const float *sine, const int32_t *positions, const int64_t *slots, float *queries, void *keys, void *values,
            long rows, long heads, long kv, long size, long width, float scale, float eps, long bf16) {
#pragma omp parallel for if (rows * heads * size > 8192)
    for (long r = 0; r < rows; r++) {
        const long half = size / 2, each = (heads + 2 * kv) * size;
        const float *c = cosine + positions[r] * half, *s = sine + positions[r] * half;
        float x[512], y[512];
        for (long h = 0; h < heads; h++) {
            float *to = queries + (r * heads + h) * width;
            head_of(qkv, r * each + h * size, bias ? bias + h * size : 0, q_gain, size, eps, bf16, x);
            turned(x, c, s, scale, size, to);
            for (long i = size; i < width; i++) to[i] = 0;
        }
        if (slots[r] < 0) continue;
        const long page = slots[r] / LANES, offset = slots[r] % LANES;
        for (long h = 0; h < kv; h++) {
            const long k = (heads + h) * size, v = (heads + kv + h) * size;
            head_of(qkv, r * each + k, bias ? bias + k : 0, k_gain, size, eps, bf16, x);
            turned(x, c, s, 1, size, y);
            long at = (page * kv + h) * width * LANES;
            for (long i = 0; i < width; i++) put(keys, at + i * LANES + offset, i < size ? y[i] : 0, bf16);
            head_of(qkv, r * each + v, bias ? bias + v : 0, 0, size, eps, bf16, x);
            for (long i = 0; i < width; i++) put(values, at + offset * width + i, i < size ? x[i] : 0, bf16);
        }
    }
}

/* out = silu(gate) * up of [rows, 2 size]. */
void gate(const void *both, void *out, long rows, long size, long bf16) {
#pragma omp parallel for if (rows * size > 32768)
    for (long r = 0; r < rows; r++) {
        const long g = 2 * r * size, u = g + size;
        long i = 0;
        for (; i + LANES <= size; i += LANES) {
            vec x = load(both, g + i, bf16);
            ivec negative = x < 0.0f;
            vec e = power((vec)((ivec)x & ~negative) * -1.0f + (vec)((ivec)x & negative)); /* e^-|x| */
            vec above = (vec)(((ivec)e & negative) | ((ivec)all(1) & ~negative));
            vec y = x * above / (1.0f + e) * load(both, u + i, bf16);
            for (int k = 0; k < LANES; k++) put(out, r * size + i + k, y[k], bf16);
        }
        for (; i < size; i++) {
            float x = one(both, g + i, bf16), e = powered(x < 0 ? x : -x);
            put(out, r * size + i, x * (x < 0 ? e : 1) / (1 + e) * one(both, u + i, bf16), bf16);
        }
    }
}

/* --- draws ------------------------------------------------------------------------------------------------------------ */

#define STRETCH 1024
INLINE vec chance(const float *row, long i, long size, vec top, float scale, float least) {
    if (i + LANES <= size) {
        vec e = power((*(const vec *)(row + i) - top) * scale);
        return (vec)((ivec)e & ~(ivec)(e < least));
    }
    vec v = all(-INFINITY);
    for (int k = 0; i + k < size; k++) v[k] = row[i + k];
    v = power((v - top) * scale);
    return (vec)((ivec)v & ~(ivec)(v < least));
}
static double weighed(const float *row, long from, long to, long size, float top, float scale, float least) {
    vec sum[2] = {all(0), all(0)};
    for (long i = from; i < to; i += 2 * LANES) {
        sum[0] += chance(row, i, size, all(top), scale, least);
        if (i + LANES < to) sum[1] += chance(row, i + LANES, size, all(top), scale, least);
    }
    return total(sum[0] + sum[1]);
}

/* One token a row of logits [rows, size]; temperature 0 is greedy, ties to the lowest id; min_p truncates.
 * noise [rows] in [0, 1): where it falls on the cumulative distribution in order of id.
 * chosen [rows]: below 0 on entry: draw one; else it is given.  On return the token, or -1 where the logits are no
 * numbers; logprobs [rows] (or null): its log-probability at temperature 1. */
void draw(const float *logits, const float *temperature, const float *min_p, const double *noise, int64_t *chosen,
          float *logprobs, long rows, long size) {
#pragma omp parallel for if (rows * size > 32768) schedule(dynamic, 1)
    for (long r = 0; r < rows; r++) {
        const float *row = logits + r * size;
        float top = -INFINITY;
        double sums[(size + STRETCH - 1) / STRETCH], whole = 0;
        vec most = all(-INFINITY);
        ivec broken = {0};
        long i = 0, token = 0;
        for (; i + LANES <= size; i += LANES) {
            vec v = *(const vec *)(row + i);
            ivec more = v > most;
            broken |= v != v;
            most = (vec)(((ivec)v & more) | ((ivec)most & ~more));
        }
        for (; i < size; i++) { most[0] = row[i] > most[0] ? row[i] : most[0]; broken[0] |= row[i] != row[i]; }
        int bad = 0;
        for (int k = 0; k < LANES; k++) bad |= broken[k];
        top = highest(most);
        if (bad || !(top < INFINITY && top > -INFINITY)) { chosen[r] = -1; if (logprobs) logprobs[r] = NAN; continue; }
        if (chosen[r] >= 0) {
            token = chosen[r];
        } else if (temperature[r] == 0) {
            while (row[token] != top) token++;
        } else {
            const float scale = 1 / temperature[r];
            for (long b = 0; b * STRETCH < size; b++) {
                long end = (b + 1) * STRETCH < size ? (b + 1) * STRETCH : size;
                whole += sums[b] = weighed(row, b * STRETCH, end, size, top, scale, min_p[r]);
            }
            double target = noise[r] * whole, at = 0;
            long b = 0, last = (size - 1) / STRETCH;
            while (b < last && at + sums[b] <= target) at += sums[b++];
            long end = (b + 1) * STRETCH < size ? (b + 1) * STRETCH : size, likely = -1;
            for (i = b * STRETCH; i < end; i += LANES) {
                vec e = chance(row, i, size, all(top), scale, min_p[r]);
                for (int k = 0; k < LANES && i + k < end; k++) {
                    if (e[k] > 0) likely = i + k;
                    at += e[k];
                    if (at > target && e[k] > 0) goto found;
                }
            }
        found:
            token = likely; /* rounding may leave the target just beyond the last of them */
            if (likely < 0)
                for (token = 0; row[token] != top;) token++;
        }
        chosen[r] = token;
        if (logprobs) {
            double sum = 0;
            for (long b = 0; b < size; b += STRETCH)
                sum += weighed(row, b, b + STRETCH < size ? b + STRETCH : size, size, top, 1, 0);
            logprobs[r] = row[token] - top - (float)log(sum);
        }
    }
}

/* Read bandwidth of this machine: each thread sums its own part of a buffer; the best of several passes counts.
 * read_bandwidth THREADS prints "read of N MiB with T threads VALUE" lines in GB/s. The sum is vectorised by the
 * compiler (-O3 -march=native); one add per word is far less work than the memory can feed. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PASSES = 12 };

typedef struct {
    const uint64_t *words;
    size_t count;
    uint64_t sum;
} Part;

static void *sum_part(void *argument) {
    Part *part = argument;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    /* Four places at a time: more requests to the memory are under way than with one. */
    size_t quarter = part->count / 4;
    const uint64_t *words = part->words;
    for (size_t i = 0; i < quarter; i++) {
        a += words[i];
        b += words[quarter + i];
        c += words[2 * quarter + i];
        d += words[3 * quarter + i];
    }
    part->sum = a + b + c + d;
    return NULL;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double best_gb_per_s(uint64_t *words, size_t count, int num_threads) {
    double best = 0.0;
    uint64_t total = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_t threads[256];
        Part parts[256];
        size_t each = count / (size_t)num_threads;
        double start = now();
        for (int i = 0; i < num_threads; i++) {
            parts[i] = (Part){words + (size_t)i * each, each, 0};
            pthread_create(&threads[i], NULL, sum_part, &parts[i]);
        }
        for (int i = 0; i < num_threads; i++) {
            pthread_join(threads[i], NULL);
            total += parts[i].sum;
        }
        double rate = (double)(each * (size_t)num_threads * 8) / (now() - start) / 1e9;
        if (rate > best) best = rate;
    }
    /* Keeps the sums from being optimised away. */
    if (total == 1) fprintf(stderr, " ");
    return best;
}

int main(int argc, char **argv) {
    int num_threads = argc > 1 ? atoi(argv[1]) : 1;
    if (num_threads < 1 || num_threads > 256) return 2;
    size_t sizes_mib[] = {64, 1024};
    for (size_t i = 0; i < sizeof sizes_mib / sizeof *sizes_mib; i++) {
        size_t count = sizes_mib[i] * (1 << 20) / 8;
        uint64_t *words = malloc(count * 8);
        if (!words) return 1;
        for (size_t j = 0; j < count; j++) words[j] = j;
        for (int threads = 1; threads <= num_threads; threads += num_threads > 1 ? num_threads - 1 : 1)
            printf("read of %zu MiB with %d threads %.1f\n", sizes_mib[i], threads, best_gb_per_s(words, count, threads));
        free(words);
    }
    return 0;
}

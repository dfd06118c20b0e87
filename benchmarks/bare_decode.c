/* The limit: only libjpeg-turbo, in a loop over files, one decompressor per thread.
 *
 *     find DIR -name '*.jpg' -o -name '*.JPEG' | bare_decode MODE THREADS WARMUP_SECONDS SECONDS
 *
 * MODE full     reads each file and decodes all of it to RGB with the library's defaults
 *
 * MODE window   draws the window of a RandomResizedCrop (area 0.08 to 1, ratio 3/4 to 4/3) and decodes only
 * its rows and columns, at the smallest of the scales 8/8, 4/8, 2/8 and 1/8 that still covers 224x224
 *
 * MODE read           only reads each file
 *
 * MODE full-entropy, window-entropy       as full and window, but rows are skipped, for which the library
 * does hardly more than undo the entropy coding; only the last row is decoded
 *
 * Threads take the files in turn, round and round; with the word "once" in place of WARMUP_SECONDS SECONDS
 * every file once, without warm-up. Prints one line of JSON. A file that cannot be read or
 * decoded ends the run with exit code 1 and its name. libjpeg's warnings are not errors here: they are in the
 * "warnings" count.
 *
 * `bare_decode grid HEIGHT WIDTH` prints for each file, in order, a line of 4x5x3 numbers: the mean colors
 * of a grid over the largest centered window of that aspect ratio. That is what the participants' images are
 * compared with.
 *
 * Build: cc -O2 -o bare_decode bare_decode.c $(pkg-config --cflags --libs libjpeg) -lm -pthread
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jpeglib.h>

enum { TARGET = 224, GRID_ROWS = 4, GRID_COLUMNS = 5 };

typedef struct {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    uint8_t *file;
    size_t file_capacity;
    uint8_t *pixels;
    size_t pixels_capacity;
    uint64_t random;
    /* work done since the warm-up */
    long images;
    long warnings;
    long bytes;
    double sampled;
    long samples;
} worker;

static char **paths;
static long path_count;
static int window_mode, read_mode, entropy_mode;
static int once;
static atomic_long next_path;
static atomic_int measuring; /* 0 warm-up, 1 measure, 2 stop */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void fail(const char *path, const char *reason) {
    fprintf(stderr, "bare_decode: %s: %s\n", path, reason);
    exit(1);
}

static void on_error(j_common_ptr jpeg) {
    char message[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, message);
    fail(jpeg->client_data, message);
}

static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0) jpeg->err->num_warnings++;
}

static void *grow(void *memory, size_t *capacity, size_t needed) {
    if (needed <= *capacity) return memory;
    free(memory);
    memory = malloc(needed);
    if (!memory) fail("memory", "none left");
    *capacity = needed;
    return memory;
}

static size_t read_file(worker *w, const char *path) {
    struct stat status;
    size_t have = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status)) fail(path, strerror(errno));
    w->file = grow(w->file, &w->file_capacity, status.st_size + 1);
    while (have < (size_t)status.st_size) {
        ssize_t got = read(fd, w->file + have, status.st_size - have);
        if (got <= 0) fail(path, got ? strerror(errno) : "ended early");
        have += got;
    }
    close(fd);
    return have;
}

/* xorshift64* (Vigna 2016), to a double in [0, 1) */
static double draw(worker *w) {
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return (w->random * 0x2545F4914F6CDD1DULL >> 11) * 0x1p-53;
}

/* The window of a RandomResizedCrop: ten tries, then the largest centered window of an allowed ratio. */
static void draw_window(worker *w, long width, long height, long *x, long *y, long *w_out, long *h_out) {
    for (int attempt = 0; attempt < 10; attempt++) {
        double area = (0.08 + 0.92 * draw(w)) * width * height;
        double ratio = exp((2 * draw(w) - 1) * log(4.0 / 3));
        long ww = lround(sqrt(area * ratio)), hh = lround(sqrt(area / ratio));
        if (ww > 0 && hh > 0 && ww <= width && hh <= height) {
            *x = (long)(draw(w) * (width - ww + 1));
            *y = (long)(draw(w) * (height - hh + 1));
            *w_out = ww;
            *h_out = hh;
            return;
        }
    }
    double ratio = fmin(fmax((double)width / height, 3.0 / 4), 4.0 / 3);
    *w_out = lround(fmin(width, height * ratio));
    *h_out = lround(fmin(height, width / ratio));
    *x = (width - *w_out) / 2;
    *y = (height - *h_out) / 2;
}

static void start(worker *w) {
    w->jpeg.err = jpeg_std_error(&w->errors);
    w->errors.error_exit = on_error;
    w->errors.emit_message = on_message;
    jpeg_create_decompress(&w->jpeg);
}

static void end(worker *w) {
    jpeg_destroy_decompress(&w->jpeg);
    free(w->file);
    free(w->pixels);
}

static void decode(worker *w, const char *path) {
    struct jpeg_decompress_struct *jpeg = &w->jpeg;
    long rows, first_row = 0;
    size_t size = read_file(w, path);

    w->bytes += size;
    w->images++;
    if (read_mode) {
        w->sampled += size ? w->file[size / 2] : 0;
        w->samples++;
        return;
    }
    jpeg->client_data = (void *)path;
    jpeg_mem_src(jpeg, w->file, size);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->num_components != 4) jpeg->out_color_space = JCS_RGB;
    if (window_mode) {
        long x, y, width, height;
        int eighths = 8;
        JDIMENSION left, columns;
        draw_window(w, jpeg->image_width, jpeg->image_height, &x, &y, &width, &height);
        while (eighths > 1 && width * (eighths / 2) >= TARGET * 8 && height * (eighths / 2) >= TARGET * 8)
            eighths /= 2;
        jpeg->scale_num = eighths;
        jpeg->scale_denom = 8;
        jpeg_start_decompress(jpeg);
        left = x * eighths / 8;
        columns = ((x + width) * eighths + 7) / 8 - left;
        if (left + columns > jpeg->output_width) columns = jpeg->output_width - left;
        first_row = y * eighths / 8;
        rows = ((y + height) * eighths + 7) / 8 - first_row;
        if (first_row + rows > jpeg->output_height) rows = jpeg->output_height - first_row;
        jpeg_crop_scanline(jpeg, &left, &columns);
    } else {
        jpeg_start_decompress(jpeg);
        rows = jpeg->output_height;
    }
    if (entropy_mode) {
        first_row += rows - 1;
        rows = 1;
    }
    if (first_row) jpeg_skip_scanlines(jpeg, first_row);
    size_t stride = (size_t)jpeg->output_width * jpeg->output_components;
    w->pixels = grow(w->pixels, &w->pixels_capacity, stride * rows);
    for (long row = 0; row < rows;) {
        JSAMPROW target = w->pixels + stride * row;
        row += jpeg_read_scanlines(jpeg, &target, 1);
    }
    w->warnings += jpeg->err->num_warnings;
    jpeg_abort_decompress(jpeg); /* the window ends before the file does */

    /* proof that pixels were decoded: the middle of some rows */
    for (long row = 0; row < rows; row += 16) {
        w->sampled += w->pixels[stride * row + stride / 2];
        w->samples++;
    }
}

static void *work(void *argument) {
    worker *w = argument;
    int phase = 0;
    start(w);
    while (phase < 2) {
        int seen = atomic_load(&measuring);
        if (seen == 1 && phase == 0) {
            w->images = w->warnings = w->samples = w->bytes = 0;
            w->sampled = 0;
        }
        phase = seen;
        if (phase < 2) {
            long next = atomic_fetch_add(&next_path, 1);
            if (once && next >= path_count) break;
            decode(w, paths[next % path_count]);
        }
    }
    end(w);
    return NULL;
}

/* Mean color of each cell of a grid over the centered window of the ratio of target_height to target_width.
 */
static void print_grid(worker *w, const char *path, long target_height, long target_width) {
    decode(w, path);
    long image_height = w->jpeg.output_height, image_width = w->jpeg.output_width,
         components = w->jpeg.output_components;
    long height = lround(fmin(image_height, (double)image_width * target_height / target_width));
    long width = lround(fmin(image_width, (double)image_height * target_width / target_height));
    long top = (image_height - height) / 2, left = (image_width - width) / 2;
    double sums[GRID_ROWS][GRID_COLUMNS][3] = {0};
    long counts[GRID_ROWS][GRID_COLUMNS] = {0};
    for (long y = 0; y < height; y++) {
        const uint8_t *row = w->pixels + ((top + y) * image_width + left) * components;
        for (long x = 0; x < width; x++) {
            long r = y * GRID_ROWS / height, c = x * GRID_COLUMNS / width;
            for (int k = 0; k < 3; k++) sums[r][c][k] += row[x * components + k];
            counts[r][c]++;
        }
    }
    for (int r = 0; r < GRID_ROWS; r++)
        for (int c = 0; c < GRID_COLUMNS; c++)
            for (int k = 0; k < 3; k++) printf("%.2f ", counts[r][c] ? sums[r][c][k] / counts[r][c] : 0.0);
    printf("\n");
}

static void read_paths(void) {
    char *line = NULL;
    size_t capacity = 0, room = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        if (line[length - 1] == '\n') line[--length] = 0;
        if (!length) continue;
        if ((size_t)path_count == room) {
            room = room ? room * 2 : 1024;
            paths = realloc(paths, room * sizeof *paths);
            if (!paths) fail("memory", "none left");
        }
        paths[path_count++] = strdup(line);
    }
    free(line);
    if (!path_count) fail("standard input", "no file names; expected one a line");
}

static void wait_seconds(double seconds) {
    struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&t, &t) && errno == EINTR);
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "grid") && atoi(argv[2]) > 0 && atoi(argv[3]) > 0) {
        worker w = {0};
        read_paths();
        start(&w);
        for (long i = 0; i < path_count; i++) print_grid(&w, paths[i], atol(argv[2]), atol(argv[3]));
        end(&w);
        return 0;
    }
    once = argc == 4 && !strcmp(argv[3], "once");
    const char *mode = argc > 1 ? argv[1] : "";
    read_mode = !strcmp(mode, "read");
    window_mode = !strncmp(mode, "window", 6);
    entropy_mode = !strcmp(mode, "full-entropy") || !strcmp(mode, "window-entropy");
    if (!(argc == 5 || once) || atoi(argv[2]) < 1 ||
        !(read_mode || entropy_mode || !strcmp(mode, "full") || !strcmp(mode, "window"))) {
        fprintf(stderr, "usage: bare_decode MODE THREADS WARMUP_SECONDS SECONDS < list-of-files\n"
                        "       bare_decode MODE THREADS once < list-of-files\n"
                        "       bare_decode grid HEIGHT WIDTH < list-of-files\n"
                        "MODE: full, window, full-entropy, window-entropy or read\n");
        return 2;
    }
    int threads = atoi(argv[2]);
    read_paths();

    worker *workers = calloc(threads, sizeof *workers);
    pthread_t *handles = calloc(threads, sizeof *handles);
    if (!workers || !handles) fail("memory", "none left");
    atomic_store(&measuring, once);
    double began = now(), cpu = cpu_seconds();
    for (int i = 0; i < threads; i++) {
        workers[i].random = 0x9E3779B97F4A7C15ULL * (i + 1);
        if (pthread_create(&handles[i], NULL, work, &workers[i])) fail("thread", "could not be started");
    }
    if (!once) {
        wait_seconds(atof(argv[3]));
        atomic_store(&measuring, 1);
        began = now();
        cpu = cpu_seconds();
        wait_seconds(atof(argv[4]));
        atomic_store(&measuring, 2);
    }
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
    double seconds = now() - began;
    cpu = cpu_seconds() - cpu;

    long images = 0, samples = 0, warnings = 0, bytes = 0;
    double sampled = 0;
    for (int i = 0; i < threads; i++) {
        images += workers[i].images;
        samples += workers[i].samples;
        sampled += workers[i].sampled;
        warnings += workers[i].warnings;
        bytes += workers[i].bytes;
    }
    printf("{\"images\": %ld, \"seconds\": %.6f, \"images_per_second\": %.1f, \"cpu_seconds\": %.6f, "
           "\"bytes\": %ld, \"mean\": %.2f, \"warnings\": %ld, \"libjpeg_turbo\": %d}\n",
           images, seconds, images / seconds, cpu, bytes, samples ? sampled / samples : 0.0, warnings,
           LIBJPEG_TURBO_VERSION_NUMBER);
    return images ? 0 : 1;
}

#include "pointwise.h"

#include <math.h>
#include <string.h>

#include "color_kernels.h"
#include "fixed.h"

enum {
    /* Pixels processed together: they fit in the first-level cache, with their planes and the next block. */
    BLOCK = 640,
    CACHE_LINE = 64,
};

/* A step over all pixels; adjacent tables are merged. */
enum { TABLE, FOLD, LINE, STRETCH, GRAY, SATURATE, TURN };

typedef struct {
    int kind;
    /* TABLE: one for each channel, or the first for all. FOLD: values of at least `threshold` are inverted,
     * then masked by `mask`. SATURATE: the factor, after an optional line. TURN: sextants, 0 to below 6, in 1
     * / 4096. */
    int same;
    int threshold;
    uint8_t mask;
    hw_line line;
    int begins_with_line;
    /* STRETCH: for each channel, and for interleaved pixels. */
    hw_spread spread[4];
    hw_factor factor;
    uint16_t turn;
    uint8_t table[3][256];
    /* The tables in the layout of the kernel. */
    uint8_t changes[3][256];
} step;

/* Statistics of the pixels that an operation needs to build its table. */
enum { NOTHING, SUMS, RANGE, HISTOGRAM };

typedef struct {
    uint64_t sum[3];
    /* Minimum and maximum of a period, for planes and for interleaved pixels. */
    uint8_t low[4][HW_PERIOD], high[4][HW_PERIOD];
    uint32_t histogram[3][4][256];
} statistics;

typedef struct {
    statistics found;
    /* log2(value / 255), computed at the first gamma. */
    int has_logarithms;
    double logarithms[256];
    uint8_t planes[3][BLOCK];
    step steps[];
} workspace;

/* Tables of single operations */

static uint8_t rounded(double value) {
    return (uint8_t)(value <= 0 ? 0 : value >= 255 ? 255 : (int)(value + 0.5));
}

/* 255 * gain * (value / 255) ** gamma. pow is called only where it could change the byte. */
static void gamma_table(const hw_color_kernels *run, double gamma, double gain, workspace *work,
                        uint8_t *table) {
    double found[256];
    if (!work->has_logarithms) {
        for (int value = 1; value < 256; value++) work->logarithms[value] = log2(value / 255.0);
        work->has_logarithms = 1;
    }
    run->powers(work->logarithms, gamma, 255.0 * gain, found);
    found[0] = gamma > 0 ? 0 : 255.0 * gain;
    for (int value = 0; value < 256; value++) {
        const double one = found[value] < 256 ? found[value] : 256;
        const double beyond = one + 0.5 - (int)(one + 0.5);
        if (beyond < 1e-6 || beyond > 1 - 1e-6)
            table[value] = rounded(255.0 * gain * pow(value / 255.0, gamma));
        else
            table[value] = rounded(one);
    }
}

/* Maps low to 0 and high to 255; unchanged if they are equal. */
static void spread_of(int low, int high, hw_spread *by, int first, int step) {
    const uint32_t range = (uint32_t)(high > low ? high - low : 255);
    const uint32_t quotient = (255 * 65536 + range - 1) / range;
    for (int i = first; i < HW_PERIOD; i += step) {
        by->low[i] = (uint8_t)(high > low ? low : 0);
        by->whole[i] = (uint8_t)(quotient >> 16);
        by->upper[i] = (uint8_t)(quotient >> 8);
        by->lower[i] = (uint8_t)quotient;
    }
}

/* The algorithm of PIL's ImageOps.equalize. */
static void equalize_table(uint32_t histogram[4][256], uint8_t *table) {
    uint64_t counts[256], sum = 0;
    int last = 0;
    for (int value = 0; value < 256; value++) {
        counts[value] = 0;
        for (int part = 0; part < 4; part++) counts[value] += histogram[part][value];
        if (counts[value]) last = value;
        sum += counts[value];
    }
    uint64_t each = (sum - counts[last]) / 255;
    uint64_t before = each / 2;
    for (int value = 0; value < 256; value++) {
        uint64_t found = each ? before / each : (uint64_t)value;
        table[value] = (uint8_t)(found > 255 ? 255 : found);
        before += counts[value];
    }
}

/* The program of one image */

typedef struct {
    const hw_color_kernels *run;
    hw_pixels source;
    uint8_t *out;
    workspace *work;
    ptrdiff_t steps;
} image_run;

static ptrdiff_t groups(ptrdiff_t pixels) {
    return (pixels + HW_GROUP - 1) / HW_GROUP * HW_GROUP;
}

/* Steps that need no planes. */
static int is_flat(const step *one) {
    return one->kind == TABLE ? one->same : one->kind != TURN;
}

static void apply_flat(const hw_color_kernels *run, const step *one, const uint8_t *in, uint8_t *out,
                       ptrdiff_t count) {
    switch (one->kind) {
    case TABLE: run->table(in, out, count, one->table[0], one->changes[0]); break;
    case LINE: run->line(in, out, count, one->line); break;
    case STRETCH: run->stretch(in, out, count, &one->spread[3]); break;
    case GRAY: run->gray_pixels(in, out, count / 3); break;
    case SATURATE:
        run->saturate_pixels(in, out, count / 3, one->factor, one->begins_with_line ? &one->line : NULL);
        break;
    default: run->fold(in, out, count, one->threshold, one->mask);
    }
}

static void apply_planes(const hw_color_kernels *run, const step *one, uint8_t (*planes)[BLOCK],
                         ptrdiff_t pixels) {
    /* Whole vectors: values after the last pixel are never used. */
    ptrdiff_t count = groups(pixels);
    switch (one->kind) {
    case GRAY: run->gray(planes[0], planes[1], planes[2], count); break;
    case SATURATE:
        if (one->begins_with_line)
            for (int channel = 0; channel < 3; channel++)
                run->line(planes[channel], planes[channel], count, one->line);
        run->saturate(planes[0], planes[1], planes[2], count, one->factor);
        break;
    case TURN: run->turn(planes[0], planes[1], planes[2], count, one->turn); break;
    default:
        for (int channel = 0; channel < 3; channel++) {
            uint8_t *plane = planes[channel];
            if (one->kind == STRETCH) {
                run->stretch(plane, plane, count, &one->spread[channel]);
            } else if (is_flat(one)) {
                apply_flat(run, one, plane, plane, count);
            } else {
                run->table(plane, plane, count, one->table[channel], one->changes[channel]);
            }
        }
    }
}

/* Four histograms, so that equal neighbors do not wait for each other. */
static void count_bytes(const uint8_t *in, ptrdiff_t count, uint32_t histogram[4][256]) {
    ptrdiff_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int part = 0; part < 4; part++) histogram[part][in[i + part]]++;
    for (; i < count; i++) histogram[0][in[i]]++;
}

static void count_pixels(const uint8_t *in, ptrdiff_t pixels, uint32_t histogram[3][4][256]) {
    ptrdiff_t i = 0;
    for (; i + 4 <= pixels; i += 4)
        for (int part = 0; part < 12; part++) histogram[part % 3][part / 3][in[3 * i + part]]++;
    for (; i < pixels; i++)
        for (int channel = 0; channel < 3; channel++) histogram[channel][0][in[3 * i + channel]]++;
}

/* For a plane. */
static void measure(const hw_color_kernels *run, int wanted, int channel, const uint8_t *plane,
                    ptrdiff_t count, statistics *found) {
    if (wanted == SUMS) {
        uint64_t sums[3] = {0, 0, 0};
        run->sums(plane, count, sums);
        found->sum[channel] += sums[0] + sums[1] + sums[2];
    } else if (wanted == RANGE) {
        run->extremes(plane, count, found->low[channel], found->high[channel]);
    } else if (wanted == HISTOGRAM) {
        count_bytes(plane, count, found->histogram[channel]);
    }
}

/* For pixels of three channels. */
static void measure_pixels(const hw_color_kernels *run, int wanted, const uint8_t *in, ptrdiff_t pixels,
                           statistics *found) {
    if (wanted == SUMS)
        run->sums(in, 3 * pixels, found->sum);
    else if (wanted == RANGE)
        run->extremes(in, 3 * pixels, found->low[3], found->high[3]);
    else if (wanted == HISTOGRAM)
        count_pixels(in, pixels, found->histogram);
}

/* Source and target of the next block, and how much of it was prefetched. Created in the function that uses
 * it: passed by value, it would be read back after all pending stores. */
typedef struct {
    const uint8_t *in, *out;
    ptrdiff_t asked, bytes;
} ahead;

/* Prefetches the next block while this one is computed: hardware prefetching works only while memory is read.
 * Many lines at once would stall until the first arrive. */
static void ask(ahead *next, ptrdiff_t bytes) {
    const ptrdiff_t end = next->bytes - next->asked < bytes ? next->bytes : next->asked + bytes;
    for (; next->asked < end; next->asked += CACHE_LINE) {
        __builtin_prefetch(next->in + next->asked, 0);
        __builtin_prefetch(next->out + next->asked, 1);
    }
}

static void run_planes(image_run *image, int wanted, const uint8_t *in, uint8_t *out, ptrdiff_t pixels,
                       ptrdiff_t more) {
    const hw_color_kernels *run = image->run;
    workspace *work = image->work;
    ahead next = {in + 3 * pixels, out + 3 * pixels, 0, 3 * more};
    const ptrdiff_t part = next.bytes / (image->steps + 1) + CACHE_LINE;
    run->split(in, pixels, work->planes[0], work->planes[1], work->planes[2]);
    for (ptrdiff_t i = 0; i < image->steps; i++) {
        ask(&next, part);
        apply_planes(run, &work->steps[i], work->planes, pixels);
    }
    ask(&next, part);
    for (int channel = 0; channel < 3; channel++)
        measure(run, wanted, channel, work->planes[channel], pixels, &work->found);
    run->join(work->planes[0], work->planes[1], work->planes[2], pixels, out);
}

static void run_flat(image_run *image, int wanted, const uint8_t *in, uint8_t *out, ptrdiff_t pixels,
                     ptrdiff_t more) {
    const hw_color_kernels *run = image->run;
    workspace *work = image->work;
    const ptrdiff_t channels = image->source.size;
    ahead next = {in + pixels * channels, out + pixels * channels, 0, more * channels};
    /* A single step reads continuously, so hardware prefetching suffices. */
    const ptrdiff_t part = image->steps > 1 ? next.bytes / image->steps + CACHE_LINE : 0;
    for (ptrdiff_t i = 0; i < image->steps; i++) {
        ask(&next, part);
        apply_flat(run, &work->steps[i], i ? out : in, out, pixels * channels);
    }
    in = image->steps ? out : in;
    if (channels == 1)
        measure(run, wanted, 0, in, pixels, &work->found);
    else
        measure_pixels(run, wanted, in, pixels, &work->found);
}

/* Runs the steps so far over all pixels, and collects the requested statistics of the result. */
static void pass(image_run *image, int wanted) {
    const hw_pixels *source = &image->source;
    const ptrdiff_t size = source->size, length = source->width * size;
    statistics *found = &image->work->found;
    int flat = 1;
    if (wanted == HISTOGRAM) memset(found->histogram, 0, sizeof found->histogram);
    memset(found->sum, 0, sizeof found->sum);
    memset(found->low, 255, sizeof found->low);
    memset(found->high, 0, sizeof found->high);
    for (ptrdiff_t i = 0; i < image->steps; i++) flat = flat && is_flat(&image->work->steps[i]);
    for (ptrdiff_t row = 0; row < source->height; row++) {
        for (ptrdiff_t first = 0; first < source->width; first += BLOCK) {
            const ptrdiff_t left = source->width - first, pixels = left < BLOCK ? left : BLOCK;
            const uint8_t *in = source->data + row * source->row_stride + first * size;
            uint8_t *out = image->out + row * length + first * size;
            const ptrdiff_t more = left - pixels < BLOCK ? left - pixels : BLOCK;
            (flat ? run_flat : run_planes)(image, wanted, in, out, pixels, more);
        }
    }
    if (image->steps) {
        image->source.data = image->out;
        image->source.row_stride = length;
        image->steps = 0;
    }
}

/* The table with the same effect as a step of another kind. */
static void tabulate(const hw_color_kernels *run, const step *light, int channel, uint8_t *table) {
    for (int value = 0; value < 256; value++) table[value] = (uint8_t)value;
    if (light->kind == STRETCH)
        run->stretch(table, table, 256, &light->spread[channel]);
    else
        apply_flat(run, light, table, table, 256);
}

/* Layout for `table_avx2`: the first 16 bytes of each quarter, then the changes from 16 to 16. */
static void changes_of(const uint8_t *restrict table, uint8_t *restrict changes) {
    for (int quarter = 0; quarter < 256; quarter += 64) {
        memcpy(changes + quarter, table + quarter, 16);
        for (int i = quarter + 16; i < quarter + 64; i++) changes[i] = table[i] ^ table[i - 16];
    }
}

/* Adds tables after the steps so far: merged with a step before that can be a table. */
static void add_tables(image_run *image, uint8_t tables[3][256], int same) {
    step *steps = image->work->steps;
    while (image->steps) {
        step *last = &steps[image->steps - 1];
        if (last->kind == FOLD || last->kind == LINE) {
            tabulate(image->run, last, 0, last->table[0]);
            last->same = 1;
        } else if (last->kind == STRETCH) {
            for (int channel = 0; channel < 3; channel++)
                tabulate(image->run, last, channel, last->table[channel]);
            last->same = image->source.size == 1;
        } else if (last->kind != TABLE) {
            break;
        }
        for (int channel = 2; channel >= 0; channel--) {
            uint8_t *found = tables[channel];
            const uint8_t *first = last->table[last->same ? 0 : channel];
            const uint8_t *then = tables[same ? 0 : channel];
            uint8_t both[256];
            for (int value = 0; value < 256; value++) both[value] = then[first[value]];
            memcpy(found, both, sizeof both);
        }
        same = same && last->same;
        image->steps--;
    }
    step *one = &steps[image->steps++];
    one->kind = TABLE;
    one->same = same;
    for (int channel = 0; channel < (same ? 1 : 3); channel++) {
        memcpy(one->table[channel], tables[channel], sizeof one->table[channel]);
        changes_of(one->table[channel], one->changes[channel]);
    }
}

/* Adds a fold or a line; after a table it is merged into it; alone or repeated it is faster than a table. */
static void add_light(image_run *image, const step *light) {
    step *last = image->steps ? &image->work->steps[image->steps - 1] : NULL;
    if (last && last->kind == TABLE) {
        for (int channel = 0; channel < (last->same ? 1 : 3); channel++) {
            apply_flat(image->run, light, last->table[channel], last->table[channel], 256);
            changes_of(last->table[channel], last->changes[channel]);
        }
    } else {
        image->work->steps[image->steps++] = *light;
    }
}

static void add_fold(image_run *image, int threshold, uint8_t mask) {
    step light;
    light.kind = FOLD;
    light.threshold = threshold;
    light.mask = mask;
    add_light(image, &light);
}

/* value * factor + offset, clamped. */
static void add_line(image_run *image, float factor, double offset) {
    if (factor < 4.0f) {
        step light;
        hw_factor fixed = hw_factor_of(factor);
        light.kind = LINE;
        light.line.factor = fixed.factor;
        light.line.shift = 7;
        while (fixed.scale >> (7 - light.line.shift) > 1) light.line.shift--;
        light.line.offset = (int16_t)floor((offset + 0.5) * (1 << light.line.shift) + 0.5);
        add_light(image, &light);
    } else {
        uint8_t tables[3][256];
        for (int value = 0; value < 256; value++) tables[0][value] = rounded(value * (double)factor + offset);
        add_tables(image, tables, 1);
    }
}

/* A line before it is merged into it. */
static void add_saturation(image_run *image, float factor) {
    step *last = image->steps ? &image->work->steps[image->steps - 1] : NULL;
    const int begins_with_line = last && last->kind == LINE;
    step *one = begins_with_line ? last : &image->work->steps[image->steps++];
    one->kind = SATURATE;
    one->begins_with_line = begins_with_line;
    one->factor = hw_factor_of(factor);
}

static void extremes_of(const statistics *found, int channel, int *low, int *high) {
    *low = 255;
    *high = 0;
    for (int i = 0; i < HW_PERIOD; i++) {
        const int place = i - i % 3 + channel;
        const uint8_t lows[2] = {found->low[channel][i], found->low[3][place]};
        const uint8_t highs[2] = {found->high[channel][i], found->high[3][place]};
        for (int which = 0; which < 2; which++) {
            *low = lows[which] < *low ? lows[which] : *low;
            *high = highs[which] > *high ? highs[which] : *high;
        }
    }
}

static double mean_gray(const image_run *image) {
    const uint64_t *sum = image->work->found.sum;
    double pixels = (double)image->source.height * (double)image->source.width;
    if (image->source.size == 1) return (double)sum[0] / pixels;
    return (0.2989 * (double)sum[0] + 0.587 * (double)sum[1] + 0.114 * (double)sum[2]) / pixels;
}

static void add(image_run *image, int operation, const float *arguments) {
    uint8_t tables[3][256];
    const double factor = (double)arguments[0], gain = (double)arguments[1];
    const int channels = (int)image->source.size;
    statistics *found = &image->work->found;
    step *one;
    switch (operation) {
    case HW_BRIGHTNESS:
        if (factor != 1.0) add_line(image, arguments[0], 0.0);
        return;
    case HW_CONTRAST:
        if (factor == 1.0) return;
        pass(image, SUMS);
        add_line(image, arguments[0], mean_gray(image) * (1.0 - factor));
        return;
    case HW_GAMMA:
        gamma_table(image->run, factor, gain, image->work, tables[0]);
        add_tables(image, tables, 1);
        return;
    case HW_AUTOCONTRAST:
        pass(image, RANGE);
        one = &image->work->steps[image->steps++];
        one->kind = STRETCH;
        for (int channel = 0; channel < 3; channel++) {
            int low, high;
            extremes_of(found, channels == 1 ? 0 : channel, &low, &high);
            spread_of(low, high, &one->spread[channel], 0, 1);
            spread_of(low, high, &one->spread[3], channel, 3);
        }
        return;
    case HW_EQUALIZE:
        pass(image, HISTOGRAM);
        for (int channel = 0; channel < channels; channel++)
            equalize_table(found->histogram[channel], tables[channel]);
        add_tables(image, tables, channels == 1);
        return;
    case HW_INVERT: add_fold(image, 0, 255); return;
    case HW_SOLARIZE: {
        const double threshold = ceil(factor);
        add_fold(image, threshold <= 0 ? 0 : threshold > 255 ? 256 : (int)threshold, 255);
        return;
    }
    case HW_POSTERIZE: add_fold(image, 256, (uint8_t)(255 << (8 - (int)factor))); return;
    default: break;
    }
    if (operation == HW_NONE || channels == 1) return;
    if (operation == HW_SATURATION) {
        if (factor != 1.0) add_saturation(image, arguments[0]);
        return;
    }
    if (operation == HW_HUE && factor == 0.0) return;
    one = &image->work->steps[image->steps++];
    if (operation == HW_GRAYSCALE) {
        one->kind = GRAY;
    } else {
        one->kind = TURN;
        one->turn = (uint16_t)((int)(HW_CIRCLE * (factor < 0 ? factor + 1.0 : factor) + 0.5) % HW_CIRCLE);
    }
}

size_t hw_pointwise_work(ptrdiff_t length) {
    return sizeof(workspace) + (size_t)length * sizeof(step);
}

void hw_pointwise_run(int simd, const hw_pixels *picture, const int32_t *operations, const float *arguments,
                      ptrdiff_t length, void *work, uint8_t *out) {
    image_run image = {hw_color_kernels_of(simd), *picture, out, work, 0};
    hw_pixels *source = &image.source;
    if (source->row_stride == source->width * source->size) {
        source->width *= source->height;
        source->height = 1;
    }
    for (ptrdiff_t i = 0; i < length; i++) add(&image, operations[i], arguments + 2 * i);
    if (image.steps) {
        pass(&image, NOTHING);
        return;
    }
    if (source->data == out) return;
    for (ptrdiff_t row = 0; row < source->height; row++)
        memcpy(out + row * source->width * source->size, source->data + row * source->row_stride,
               (size_t)(source->width * source->size));
}

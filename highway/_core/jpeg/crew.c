#include "crew.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes that usually contain the header. */
#define HEADER_BYTES ((size_t)4096)

/* Files open at a time while headers are read: concurrent requests for the disk. */
enum { OPEN_FILES = 16 };

/* Maximum memory for batches in progress, unless one batch needs more. */
#define TOGETHER_BYTES ((size_t)64 << 20)

/* Maximum memory for pictures decoded before their images exist. */
#define AHEAD_BYTES ((size_t)8 << 20)

/* Maximum memory for files that were read as a whole for their headers, of each and of those of a job: they
 * are not read once more for their pixels. */
#define KEPT_FILE ((size_t)1 << 20)
#define KEPT_BYTES ((size_t)16 << 20)

/* Pictures of a job per worker, on average. */
enum { PICTURES_EACH = 16 };

struct hw_crew {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    hw_job *oldest, *newest;
    int workers, closed;
};

hw_crew *hw_crew_new(void) {
    hw_crew *crew = calloc(1, sizeof *crew);
    if (!crew) return NULL;
    if (pthread_mutex_init(&crew->lock, NULL)) {
        free(crew);
        return NULL;
    }
    if (pthread_cond_init(&crew->changed, NULL)) {
        pthread_mutex_destroy(&crew->lock);
        free(crew);
        return NULL;
    }
    return crew;
}

void hw_crew_free(hw_crew *crew) {
    if (!crew) return;
    pthread_cond_destroy(&crew->changed);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}

void hw_crew_resize(hw_crew *crew, int change) {
    pthread_mutex_lock(&crew->lock);
    crew->workers += change;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
}

void hw_crew_close(hw_crew *crew) {
    pthread_mutex_lock(&crew->lock);
    crew->closed = 1;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
}

/* ---- list of jobs, guarded by the lock ---- */

static void insert(hw_crew *crew, hw_job *job) {
    hw_job *before = crew->newest;
    while (before && before->turn > job->turn) before = before->older;
    job->older = before;
    job->newer = before ? before->newer : crew->oldest;
    *(job->older ? &job->older->newer : &crew->oldest) = job;
    *(job->newer ? &job->newer->older : &crew->newest) = job;
    job->open = job->next = job->done = job->ahead_count = job->storage_failed = 0;
    job->joined = 1;
}

static void take_out(hw_crew *crew, hw_job *job) {
    *(job->older ? &job->older->newer : &crew->oldest) = job->newer;
    *(job->newer ? &job->newer->older : &crew->newest) = job->older;
    job->joined = 0;
    pthread_cond_broadcast(&crew->changed);
}

/* Maximum number of jobs in progress: each worker has PICTURES_EACH pictures of this job, or a job of its
 * own; at most as many as fit into TOGETHER_BYTES. */
static int most_jobs(const hw_crew *crew, const hw_job *job) {
    int wanted = (crew->workers * PICTURES_EACH + job->count - 1) / job->count;
    if (wanted > crew->workers) wanted = crew->workers;
    if (job->bytes && (size_t)wanted > TOGETHER_BYTES / job->bytes)
        wanted = (int)(TOGETHER_BYTES / job->bytes);
    return wanted < 1 ? 1 : wanted;
}

/* Number of older jobs with pictures to begin, or just to finish. */
static int older_jobs(const hw_job *job, int unfinished) {
    int count = 0;
    for (const hw_job *other = job->older; other; other = other->older)
        count += unfinished || !other->open || other->next < other->count;
    return count;
}

/* The oldest job that has pictures to decode. */
static hw_job *to_help(const hw_crew *crew) {
    for (hw_job *job = crew->oldest; job; job = job->newer)
        if (job->open && job->next < job->count) return job;
    return NULL;
}

/* ---- pictures ---- */

void hw_sample_release(hw_sample *sample) {
    free(sample->kept);
    sample->kept = NULL;
}

/* Keeps a file for its pixels if there is room; otherwise it is read again. */
static void keep(hw_job *job, hw_sample *sample, const uint8_t *bytes, size_t size) {
    if (size > KEPT_FILE || job->kept_bytes + size > KEPT_BYTES) return;
    sample->kept = malloc(size);
    if (!sample->kept) return;
    memcpy(sample->kept, bytes, size);
    sample->size = size;
    job->kept_bytes += size;
}

static int read_header(hw_job *job, hw_sample *sample, int file, size_t file_size, hw_worker *worker) {
    size_t wanted = file_size < HEADER_BYTES ? file_size : HEADER_BYTES, got;
    for (;;) {
        int status = hw_file_take(file, sample->range, wanted, &worker->file, &got, sample->message);
        if (status != HW_OK) return status;
        /* A file that was shortened meanwhile counts with its current size. */
        status = hw_picture_inspect(worker->file.bytes, got, got < wanted ? got : file_size, job->oriented,
                                    job->max_pixels, &sample->picture, sample->message);
        const int useful = status == HW_OK || status == HW_NOT_JPEG || status == HW_REFUSED;
        if (useful && got == file_size) keep(job, sample, worker->file.bytes, got);
        if (status != HW_MORE) return status;
        wanted = file_size / 8 > wanted ? wanted * 8 : file_size;
    }
}

static int header_in_memory(const hw_job *job, hw_sample *sample) {
    if (!sample->bytes) {
        snprintf(sample->message, HW_MESSAGE_SIZE, "is not there");
        return HW_NO_FILE;
    }
    if (sample->size == 0) {
        snprintf(sample->message, HW_MESSAGE_SIZE, "is empty (0 bytes)");
        return HW_BAD_FILE;
    }
    if (sample->size > job->max_bytes) {
        snprintf(sample->message, HW_MESSAGE_SIZE, "has %zu bytes, allowed are %zu", sample->size,
                 job->max_bytes);
        return HW_BAD_FILE;
    }
    return hw_picture_inspect(sample->bytes, sample->size, sample->size, job->oriented, job->max_pixels,
                              &sample->picture, sample->message);
}

static int is_closed(hw_crew *crew) {
    pthread_mutex_lock(&crew->lock);
    const int closed = crew->closed;
    pthread_mutex_unlock(&crew->lock);
    return closed;
}

/* A lost server may take a minute to fail for each file: after one failure, others are not tried. */
static void mark_untried(hw_sample *sample) {
    snprintf(sample->message, HW_MESSAGE_SIZE, "was not tried: the storage failed at another file");
    sample->status = HW_UNTRIED;
}

static int read_headers(hw_crew *crew, hw_job *job, hw_worker *worker, int count) {
    int storage_failed = 0;
    job->kept_bytes = 0;
    for (int first = 0, n; first < count; first += n) {
        if (is_closed(crew)) return -1;
        int files[OPEN_FILES];
        size_t sizes[OPEN_FILES];
        for (n = 0; n < OPEN_FILES && first + n < count; n++) {
            hw_sample *sample = &job->samples[first + n];
            sample->message[0] = 0;
            if (!sample->path) {
                sample->status = header_in_memory(job, sample);
                continue;
            }
            if (storage_failed) {
                mark_untried(sample);
                continue;
            }
            sample->status = hw_file_open(sample->path, sample->range, job->max_bytes, 1, &files[n],
                                          &sizes[n], sample->message);
            /* Retry after closing the open files. */
            if (sample->status == HW_NO_HANDLE && n > 0) break;
            storage_failed = sample->status == HW_STORAGE;
        }
        for (int i = 0; i < n; i++) {
            hw_sample *sample = &job->samples[first + i];
            if (!sample->path || sample->status != HW_OK) continue;
            if (storage_failed)
                mark_untried(sample);
            else
                sample->status = read_header(job, sample, files[i], sizes[i], worker);
            storage_failed = storage_failed || sample->status == HW_STORAGE;
            close(files[i]);
        }
    }
    return 0;
}

static void decode_file(const hw_job *job, hw_sample *sample, hw_worker *worker, const hw_views *views) {
    size_t size;
    hw_picture now;
    sample->status =
        hw_file_read(sample->path, sample->range, job->max_bytes, &worker->file, &size, sample->message);
    if (sample->status != HW_OK) return;
    sample->status = hw_picture_inspect(worker->file.bytes, size, size, job->oriented, job->max_pixels, &now,
                                        sample->message);
    if (sample->status == HW_OK &&
        (now.height != sample->picture.height || now.width != sample->picture.width ||
         now.orientation != sample->picture.orientation)) {
        snprintf(sample->message, HW_MESSAGE_SIZE,
                 "was changed while it was read: %d x %d pixels, before it had %d x %d", now.height,
                 now.width, sample->picture.height, sample->picture.width);
        sample->status = HW_BAD_FILE;
    }
    if (sample->status == HW_NOT_JPEG) sample->status = HW_BAD_FILE;
    if (sample->status == HW_OK)
        sample->status =
            hw_picture_decode(worker->decoders, worker->file.bytes, size, &now, views, sample->message);
    hw_buffer_trim(&worker->file, size);
}

/* Decodes one picture into an image for each view. */
static void decode(const hw_job *job, hw_sample *sample, hw_worker *worker, const hw_image *images) {
    const uint8_t *bytes = sample->kept ? sample->kept : sample->bytes;
    const hw_views views = {sample->targets, images, job->views};
    if (sample->path && !sample->kept)
        decode_file(job, sample, worker, &views);
    else
        sample->status = hw_picture_decode(worker->decoders, bytes, sample->size, &sample->picture, &views,
                                           sample->message);
    /* Another decoder may need a file that was refused. */
    if (sample->status != HW_REFUSED) hw_sample_release(sample);
}

static hw_image image_of(const hw_job *job, const hw_sample *sample, int view) {
    hw_image image = job->images[view];
    image.data = (uint8_t *)image.data + (size_t)sample->slot * job->image_bytes[view];
    return image;
}

/* Decodes the next picture of a job; the caller holds the lock. */
static void decode_next(hw_crew *crew, hw_job *job, hw_worker *worker) {
    hw_sample *sample = &job->samples[job->chosen[job->next++]];
    const int storage_failed = job->storage_failed && sample->path;
    /* Which job is due may depend on whether this one has pictures to begin. */
    if (job->next == job->count) pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
    if (storage_failed) {
        mark_untried(sample);
    } else {
        hw_image images[HW_MOST_VIEWS];
        for (int v = 0; v < job->views; v++) images[v] = image_of(job, sample, v);
        decode(job, sample, worker, images);
    }
    pthread_mutex_lock(&crew->lock);
    if (sample->status == HW_STORAGE) job->storage_failed = 1;
    if (++job->done == job->count) pthread_cond_broadcast(&crew->changed);
}

/* ---- work on a job ---- */

int hw_crew_join(hw_crew *crew, hw_job *job, hw_worker *worker, int count) {
    pthread_mutex_lock(&crew->lock);
    insert(crew, job);
    pthread_mutex_unlock(&crew->lock);
    return read_headers(crew, job, worker, count);
}

static size_t target_bytes(const hw_target *target) {
    return (size_t)target->height * (size_t)target->width * (size_t)(target->channels << target->wide);
}

/* Decodes the next chosen picture into its own buffer; -1 if there is none. */
static int decode_ahead(hw_job *job, hw_worker *worker) {
    if (job->ahead_count == HW_AHEAD || job->ahead_count == job->count || job->storage_failed) return -1;
    hw_sample *sample = &job->samples[job->chosen[job->ahead_count]];
    hw_buffer *place = &job->ahead[job->ahead_count];
    size_t bytes = 0;
    for (int v = 0; v < job->views; v++) bytes += target_bytes(&sample->targets[v]);
    if (bytes > AHEAD_BYTES / HW_AHEAD || hw_buffer_reserve(place, bytes)) return -1;
    hw_image images[HW_MOST_VIEWS];
    int lefts[HW_MOST_VIEWS], tops[HW_MOST_VIEWS];
    uint8_t *next = place->bytes;
    for (int v = 0; v < job->views; v++) {
        hw_target *target = &sample->targets[v];
        images[v] = (hw_image){next, target->height, target->width, target->channels, NULL};
        next += target_bytes(target);
        lefts[v] = target->left;
        tops[v] = target->top;
        target->left = target->top = 0;
    }
    decode(job, sample, worker, images);
    for (int v = 0; v < job->views; v++) {
        sample->targets[v].left = lefts[v];
        sample->targets[v].top = tops[v];
    }
    /* No other worker reads it before the job is open. */
    job->storage_failed = sample->status == HW_STORAGE;
    job->ahead_count++;
    return 0;
}

static void put_ahead(hw_job *job) {
    for (int i = 0; i < job->ahead_count; i++) {
        hw_sample *sample = &job->samples[job->chosen[i]];
        if (sample->status != HW_OK) continue;
        const uint8_t *next = job->ahead[i].bytes;
        for (int v = 0; v < job->views; v++) {
            const hw_image image = image_of(job, sample, v);
            const hw_target *target = &sample->targets[v];
            const size_t row = target_bytes(target) / (size_t)target->height;
            for (int y = 0; y < target->height; y++, next += row) hw_target_put(target, &image, y, next);
        }
    }
    for (int i = 0; i < HW_AHEAD; i++) hw_buffer_free(&job->ahead[i]);
}

int hw_crew_begin(hw_crew *crew, hw_job *job, hw_worker *worker) {
    pthread_mutex_lock(&crew->lock);
    if (!job->joined) insert(crew, job);
    job->ahead_count = 0;
    while (!crew->closed && older_jobs(job, 0) >= most_jobs(crew, job)) {
        hw_job *other = to_help(crew);
        if (other)
            decode_next(crew, other, worker);
        else
            pthread_cond_wait(&crew->changed, &crew->lock);
    }
    const int closed = crew->closed, together = most_jobs(crew, job) < crew->workers;
    pthread_mutex_unlock(&crew->lock);
    if (closed) return -1;
    for (int waiting = together; waiting;) {
        pthread_mutex_lock(&crew->lock);
        /* Check once more after the last older job is finished. */
        waiting = older_jobs(job, 1) >= most_jobs(crew, job);
        pthread_mutex_unlock(&crew->lock);
        if (decode_ahead(job, worker)) break;
    }
    return 0;
}

int hw_crew_ahead(hw_crew *crew, hw_job *job, hw_worker *worker) {
    pthread_mutex_lock(&crew->lock);
    const int alone = crew->closed || most_jobs(crew, job) >= crew->workers;
    pthread_mutex_unlock(&crew->lock);
    return alone ? -1 : decode_ahead(job, worker);
}

int hw_crew_finish(hw_crew *crew, hw_job *job, hw_worker *worker) {
    pthread_mutex_lock(&crew->lock);
    job->next = job->ahead_count;
    job->open = 1;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
    put_ahead(job);
    pthread_mutex_lock(&crew->lock);
    job->done += job->ahead_count;
    while (job->next < job->count && !crew->closed) decode_next(crew, job, worker);
    const int whole = job->next == job->count;
    job->count = job->next; /* the remaining pictures are not begun */
    while (job->done < job->count) pthread_cond_wait(&crew->changed, &crew->lock);
    take_out(crew, job);
    pthread_mutex_unlock(&crew->lock);
    return whole ? 0 : -1;
}

void hw_crew_leave(hw_crew *crew, hw_job *job) {
    pthread_mutex_lock(&crew->lock);
    if (job->joined) take_out(crew, job);
    pthread_mutex_unlock(&crew->lock);
}

/* Workers that decode the pictures of batches together.
 *
 * Each worker adds a job, its own batch, and helps with earlier jobs until its turn. So only few batches need
 * memory at a time, for any number of workers, and each batch is complete as early as possible. The number of
 * workers and the size of the jobs determine how many jobs are in progress: each worker has some pictures of
 * each job, and large jobs are few.
 */
#ifndef HIGHWAY_CREW_H
#define HIGHWAY_CREW_H

#include <stddef.h>
#include <stdint.h>

#include "decoders.h"
#include "drawing.h"
#include "files.h"

/* Maximum number of pictures decoded before their images exist. */
enum { HW_AHEAD = 16 };

/* Maximum number of views of a picture. */
enum { HW_MOST_VIEWS = 64 };

typedef struct {
    const char *path;     /* of the file; NULL if its bytes are in memory */
    hw_range range;       /* of the file */
    const uint8_t *bytes; /* the bytes; unchanged until the job has left */
    uint8_t *kept; /* those of a file that was read as a whole for its header; NULL if there are none */
    size_t size;   /* of `bytes` or `kept` */
    int status;    /* enum hw_status */
    hw_picture picture;
    hw_target *targets; /* of its views */
    ptrdiff_t slot;     /* index of its image in each array of images */
    char message[HW_MESSAGE_SIZE];
} hw_sample;

/* The pictures of a batch. The crew's lock guards the fields below the line. */
typedef struct hw_job {
    hw_sample *samples;
    int64_t turn;                      /* jobs are due in this order */
    const int64_t *chosen;             /* indices of the samples to decode */
    int count;                         /* of them */
    size_t bytes;                      /* of all its images; 0: unknown */
    int views;                         /* of each picture */
    hw_image images[HW_MOST_VIEWS];    /* the first of each view */
    size_t image_bytes[HW_MOST_VIEWS]; /* from there to the next of the same view */
    size_t max_bytes;                  /* of a file */
    int64_t max_pixels;
    int oriented;
    hw_buffer ahead[HW_AHEAD];
    int ahead_count;
    size_t kept_bytes; /* of all samples */
    /* ---- */
    int joined, open;   /* is in the list; has images */
    int next, done;     /* counts of chosen samples: begun, finished */
    int storage_failed; /* remaining files are not tried */
    struct hw_job *older, *newer;
} hw_job;

typedef struct hw_crew hw_crew;

/* State of one thread. */
typedef struct {
    hw_decoders *decoders;
    hw_buffer file;
} hw_worker;

/* Frees the bytes that a sample keeps, if any. */
void hw_sample_release(hw_sample *sample);

hw_crew *hw_crew_new(void);
void hw_crew_free(hw_crew *crew);

/* Changes the number of workers by `change`. */
void hw_crew_resize(hw_crew *crew, int change);

/* Wakes all workers that wait for their turn; no worker waits from then on. */
void hw_crew_close(hw_crew *crew);

/* Adds a job, so that later jobs wait for it, and reads the headers of all its files; sets the status of
 * every sample. -1 if the crew was closed meanwhile. */
int hw_crew_join(hw_crew *crew, hw_job *job, hw_worker *worker, int count);

/* Helps with other jobs until this job's turn, and first decodes a chosen picture: the images of an older
 * batch may become free meanwhile. A job that has left joins again. -1 if the crew was closed meanwhile. */
int hw_crew_begin(hw_crew *crew, hw_job *job, hw_worker *worker);

/* Decodes one more picture before the images exist; 0, or -1 if it decodes none: the batch is not shared with
 * others, or there is no space. */
int hw_crew_ahead(hw_crew *crew, hw_job *job, hw_worker *worker);

/* Decodes the chosen pictures of the job, together with the crew; the job then has left the crew. -1 if the
 * crew was closed before all was done. */
int hw_crew_finish(hw_crew *crew, hw_job *job, hw_worker *worker);

/* Leaves the crew without decoding; no effect if the job has left already. */
void hw_crew_leave(hw_crew *crew, hw_job *job);

#endif

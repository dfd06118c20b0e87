/* Workers that decode the pictures of batches together.
 *
 * Each worker brings a batch, a job, of its own, and helps with those that are due before it until its turn
 * has come. So the memory of few batches is needed at a time, however many workers there are, and a batch is
 * done as soon as it can be. How many jobs are under way at once follows from the number of workers and the
 * size of the jobs: a worker is to have some pictures of each, and large ones are to be few.
 */
#ifndef HIGHWAY_CREW_H
#define HIGHWAY_CREW_H

#include <stddef.h>
#include <stdint.h>

#include "files.h"
#include "jpeg_decoder.h"

/* Pictures that are decoded at most before there is an image for them. */
enum { HW_AHEAD = 16 };

typedef struct {
    const char *path;     /* of the file; NULL where its bytes are in memory already */
    const uint8_t *bytes; /* then these, which nobody changes or frees before the job has left */
    size_t size;
    int status; /* enum hw_status */
    hw_picture picture;
    hw_target target;
    ptrdiff_t slot; /* number of its image */
    char message[HW_MESSAGE_SIZE];
} hw_sample;

/* The pictures of a batch. The crew's lock guards what is below the line. */
typedef struct hw_job {
    hw_sample *samples;
    int64_t turn;          /* jobs are due in this order */
    const int64_t *chosen; /* numbers of the samples that are to be decoded */
    int count;             /* of them */
    size_t bytes;          /* of all its images; 0 if that is nobody's concern */
    hw_image images;       /* the first; the others stand behind it */
    size_t image_bytes;
    size_t max_bytes; /* of a file */
    int64_t max_pixels;
    int oriented;
    hw_buffer ahead[HW_AHEAD];
    int ahead_count;
    /* ---- */
    int joined, open; /* is in the list; has images */
    int next, done;   /* of the chosen: begun, finished */
    int away;         /* the storage failed: what is not begun is not tried */
    struct hw_job *older, *newer;
} hw_job;

typedef struct hw_crew hw_crew;

/* What belongs to one thread. */
typedef struct {
    hw_jpeg *jpeg;
    hw_buffer file;
} hw_worker;

hw_crew *hw_crew_new(void);
void hw_crew_free(hw_crew *crew);

/* Tells that `change` workers have come (or have gone). */
void hw_crew_hire(hw_crew *crew, int change);

/* Wakes all that wait for their turn; nobody waits from then on. */
void hw_crew_close(hw_crew *crew);

/* Makes a job known, so that those behind it wait for it, and reads the headers of all of its files; every
 * sample has a status then. -1 where the crew was closed meanwhile. */
int hw_crew_join(hw_crew *crew, hw_job *job, hw_worker *worker, int count);

/* Helps with other jobs until it is this one's turn, and decodes what is chosen first: a moment later the
 * images of an older batch may be free again. A job that has left is back then. -1 where the crew was closed
 * meanwhile. */
int hw_crew_begin(hw_crew *crew, hw_job *job, hw_worker *worker);

/* Decodes one more picture before there are images; 0, or -1 where that is not to be done: the batch is not
 * made together with others, or there is no place. */
int hw_crew_ahead(hw_crew *crew, hw_job *job, hw_worker *worker);

/* Decodes what is chosen of the job, together with the others; it has left the crew then. -1 where the crew
 * was closed before all was done. */
int hw_crew_finish(hw_crew *crew, hw_job *job, hw_worker *worker);

/* Leaves the crew without decoding; does nothing where it has left. */
void hw_crew_leave(hw_crew *crew, hw_job *job);

#endif

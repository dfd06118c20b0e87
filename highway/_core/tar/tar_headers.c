#include "tar_headers.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 512, INTERRUPTED = 100 };

/* Largest extended header, which holds a name. */
#define MOST_EXTENDED ((int64_t)1 << 20)

/* Bytes after the end that are looked at. */
#define MOST_TRAILING ((int64_t)1 << 20)

void hw_tar_begin(hw_tar *tar, hw_tar_read read, void *source, int64_t size, int64_t at) {
    memset(tar, 0, sizeof *tar);
    tar->read = read;
    tar->source = source;
    tar->size = size;
    tar->at = at;
    tar->pax_size = -1;
}

void hw_tar_free(hw_tar *tar) {
    hw_buffer_free(&tar->name);
    hw_buffer_free(&tar->extension);
}

int64_t hw_tar_read_file(void *source, int64_t offset, uint8_t *into, size_t size) {
    size_t got = 0;
    for (int interrupted = 0; got < size;) {
        const ssize_t part =
            pread(*(const int *)source, into + got, size - got, (off_t)(offset + (int64_t)got));
        if (part < 0 && errno == EINTR && ++interrupted < INTERRUPTED) continue;
        if (part < 0) return -1;
        if (part == 0) break;
        got += (size_t)part;
    }
    return (int64_t)got;
}

static int all_zero(const uint8_t *bytes, int64_t size) {
    for (int64_t i = 0; i < size; i++)
        if (bytes[i]) return 0;
    return 1;
}

/* The end of a field: its first zero byte, or all of it. */
static size_t length(const uint8_t *field, size_t most) {
    const uint8_t *end = memchr(field, 0, most);
    return end ? (size_t)(end - field) : most;
}

/* A number in octal digits, or in base 256 (GNU); -1 if it is not valid. */
static int64_t number(const uint8_t *field, int size) {
    int64_t value = 0;
    int i = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80) return -1;
        for (i = 1; i < size; i++) {
            if (value > (INT64_MAX >> 8)) return -1;
            value = value << 8 | field[i];
        }
        return value;
    }
    while (i < size && field[i] == ' ') i++;
    for (; i < size && field[i] >= '0' && field[i] <= '7'; i++) {
        if (value > (INT64_MAX >> 3)) return -1;
        value = value << 3 | (field[i] - '0');
    }
    for (; i < size; i++)
        if (field[i] != 0 && field[i] != ' ') return -1;
    return value;
}

/* Whether the checksum is that of the header; some programs sum signed bytes. */
static int sound(const uint8_t *block) {
    const int64_t stated = number(block + 148, 8);
    int64_t sum = 8 * ' ', signed_sum = 8 * ' ';
    for (int i = 0; i < BLOCK; i++) {
        if (i >= 148 && i < 156) continue;
        sum += block[i];
        signed_sum += (int8_t)block[i];
    }
    return stated == sum || stated == signed_sum;
}

static int keep_name(hw_tar *tar, const uint8_t *name, size_t size) {
    if (hw_buffer_reserve(&tar->name, size + 1)) return HW_TAR_NO_MEMORY;
    memcpy(tar->name.bytes, name, size);
    tar->name_size = size;
    tar->named = 1;
    return HW_TAR_MEMBER;
}

static int is_key(const uint8_t *key, size_t size, const char *wanted) {
    return size == strlen(wanted) && !memcmp(key, wanted, size);
}

/* One record "key=value" of a pax header. */
static int take_record(hw_tar *tar, const uint8_t *record, size_t size) {
    const uint8_t *equals = memchr(record, '=', size);
    if (!equals) return HW_TAR_EXTENDED;
    const size_t key = (size_t)(equals - record), value = size - key - 1;
    if (key >= 11 && !memcmp(record, "GNU.sparse.", 11)) tar->sparse = 1;
    if (is_key(record, key, "path")) {
        if (value == 0 || memchr(equals + 1, 0, value)) return HW_TAR_EXTENDED;
        return keep_name(tar, equals + 1, value);
    }
    if (is_key(record, key, "size")) {
        int64_t found = 0;
        for (size_t i = 1; i <= value; i++) {
            if (equals[i] < '0' || equals[i] > '9' || found > INT64_MAX / 10 - 1) return HW_TAR_EXTENDED;
            found = found * 10 + (equals[i] - '0');
        }
        if (value == 0) return HW_TAR_EXTENDED;
        tar->pax_size = found;
    }
    return HW_TAR_MEMBER;
}

/* The records of a pax header: "LENGTH key=value\n", where LENGTH counts all of the record. */
static int take_records(hw_tar *tar, const uint8_t *bytes, size_t size) {
    for (size_t at = 0; at < size;) {
        size_t whole = 0, i = at;
        for (; i < size && bytes[i] >= '0' && bytes[i] <= '9' && whole <= size; i++)
            whole = whole * 10 + (size_t)(bytes[i] - '0');
        if (i == at || i == size || bytes[i] != ' ') return HW_TAR_EXTENDED;
        if (whole > size - at || at + whole < i + 2 || bytes[at + whole - 1] != '\n') return HW_TAR_EXTENDED;
        const int status = take_record(tar, bytes + i + 1, at + whole - i - 2);
        if (status != HW_TAR_MEMBER) return status;
        at += whole;
    }
    return HW_TAR_MEMBER;
}

/* Reads an extended header, which is about the next member. */
static int take_extended(hw_tar *tar, const hw_tar_member *member) {
    if (member->size > MOST_EXTENDED) return HW_TAR_EXTENDED;
    const size_t size = (size_t)member->size;
    if (hw_buffer_reserve(&tar->extension, size + 1)) return HW_TAR_NO_MEMORY;
    if (tar->read(tar->source, member->start, tar->extension.bytes, size) != member->size) return HW_TAR_READ;
    tar->extended = 1;
    if (member->type == 'x' || member->type == 'X') return take_records(tar, tar->extension.bytes, size);
    if (member->type != 'L') return HW_TAR_MEMBER; /* 'K': the target of a link */
    const size_t name = length(tar->extension.bytes, size);
    return name ? keep_name(tar, tar->extension.bytes, name) : HW_TAR_EXTENDED;
}

/* Sets the name of a member: that of an extended header, or of its own header with the prefix of ustar. */
static void name_member(const hw_tar *tar, hw_tar_member *member) {
    const uint8_t *block = member->block;
    if (tar->named) {
        member->name = tar->name.bytes;
        member->name_size = tar->name_size;
        return;
    }
    member->name = block;
    member->name_size = length(block, 100);
    const size_t prefix = memcmp(block + 257, "ustar\0", 6) ? 0 : length(block + 345, 155);
    if (!prefix) return;
    memcpy(member->joined, block + 345, prefix);
    member->joined[prefix] = '/';
    memcpy(member->joined + prefix + 1, block, member->name_size);
    member->name = member->joined;
    member->name_size += prefix + 1;
}

/* After a block of zeros, or at the end of the file: only zeros may follow. */
static int end(hw_tar *tar, hw_tar_member *member) {
    uint8_t block[BLOCK];
    if (tar->extended) return HW_TAR_CUT_AFTER;
    const int64_t first = tar->at;
    for (int64_t at = first; at < tar->size && at - first < MOST_TRAILING; at += BLOCK) {
        const int64_t got = tar->read(tar->source, at, block, BLOCK);
        member->header = at;
        if (got < 0) return HW_TAR_READ;
        if (!all_zero(block, got)) return HW_TAR_TRAILING;
        if (got < BLOCK) break;
    }
    return HW_TAR_END;
}

/* Reads one header; HW_TAR_MEMBER for any header. */
static int read_header(hw_tar *tar, hw_tar_member *member) {
    member->header = tar->at;
    member->name = member->block;
    member->name_size = 0;
    if (tar->at >= tar->size) return end(tar, member);
    const int64_t got = tar->read(tar->source, tar->at, member->block, BLOCK);
    if (got < 0) return HW_TAR_READ;
    if (all_zero(member->block, got)) return end(tar, member);
    if (got < BLOCK) return HW_TAR_CUT_HEADER;
    if (!sound(member->block)) return HW_TAR_CHECKSUM;
    member->type = (char)member->block[156];
    member->start = tar->at + BLOCK;
    member->size = number(member->block + 124, 12);
    if (member->size < 0) return HW_TAR_NUMBER;
    return HW_TAR_MEMBER;
}

/* Whether a header has no contents after it, whatever size it states. */
static int without_contents(char type) {
    return type >= '1' && type <= '6';
}

/* Moves to the next header; HW_TAR_CUT_MEMBER if the contents of this one are not all there. */
static int pass(hw_tar *tar, const hw_tar_member *member) {
    if (member->size > tar->size - member->start) return HW_TAR_CUT_MEMBER;
    const int64_t padding = (BLOCK - member->size % BLOCK) % BLOCK;
    tar->at = member->start + member->size + padding;
    return HW_TAR_MEMBER;
}

static void forget_extended(hw_tar *tar) {
    tar->extended = tar->named = tar->sparse = 0;
    tar->pax_size = -1;
}

int hw_tar_next(hw_tar *tar, hw_tar_member *member) {
    for (;;) {
        int status = read_header(tar, member);
        if (status != HW_TAR_MEMBER) return status;
        const char type = member->type;
        if (type == 'x' || type == 'X' || type == 'L' || type == 'K' || type == 'g') {
            status = pass(tar, member);
            /* A global header says nothing that a member needs. */
            if (status == HW_TAR_MEMBER && type != 'g') status = take_extended(tar, member);
            if (status != HW_TAR_MEMBER) return status;
            continue;
        }
        name_member(tar, member);
        if (tar->pax_size >= 0) member->size = tar->pax_size;
        const int sparse = tar->sparse;
        forget_extended(tar);
        const int regular = type == '0' || type == 0 || type == '7';
        const int folder = type == '5' || type == 'D' || type == 'V' ||
                           (regular && member->name_size && member->name[member->name_size - 1] == '/');
        if (!folder && (!regular || sparse)) {
            if (sparse) member->type = 'S';
            return HW_TAR_REFUSED;
        }
        if (without_contents(type)) member->size = 0;
        status = pass(tar, member);
        if (status != HW_TAR_MEMBER || !folder) return status;
    }
}

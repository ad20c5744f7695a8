#include "drilling/stamp.h"

#include <string.h>

static const int64_t NS = 1000000000;

/* Reads exactly `digits` digits; false when there are not so many or the number is not within [low, high]. */
static bool read_digits(const char **at, int digits, int low, int high, int *value)
{
    int number = 0;
    for (int i = 0; i < digits; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        number = number * 10 + ((*at)[i] - '0');
    }
    *at += digits;
    *value = number;
    return number >= low && number <= high;
}

static bool read_char(const char **at, char expected)
{
    if (**at != expected)
        return false;
    (*at)++;
    return true;
}

/* Days since 1970-01-01 in the Gregorian calendar. Years begin in March, so that the leap day is the last of one. */
static int64_t days_since_epoch(int year, int month, int day)
{
    int64_t y = month > 2 ? year : year - 1;
    int64_t months_since_march = month > 2 ? month - 3 : month + 9;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * months_since_march + 2) / 5 + day - 1 - 719468;
}

static bool is_day(int year, int month, int day)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return day <= lengths[month - 1] + (month == 2 && leap);
}

static bool read_fraction(const char **at, int64_t *ns)
{
    int64_t unit = NS / 10;
    *ns = 0;
    if (!read_char(at, '.'))
        return true;
    const char *first = *at;
    for (; **at >= '0' && **at <= '9'; (*at)++, unit /= 10)
        *ns += unit * (**at - '0');
    return *at > first;
}

/* Minutes east of Greenwich. */
static bool read_zone(const char **at, int *minutes)
{
    *minutes = 0;
    if (**at == 0 || read_char(at, 'Z'))
        return true;
    int sign = **at == '-' ? -1 : 1, hours, rest = 0;
    if (**at != '+' && **at != '-')
        return false;
    (*at)++;
    if (!read_digits(at, 2, 0, 23, &hours))
        return false;
    bool colon = read_char(at, ':');
    if ((colon || **at) && !read_digits(at, 2, 0, 59, &rest))
        return false;
    *minutes = sign * (hours * 60 + rest);
    return true;
}

bool stamp_parse(const char *stamp, int64_t *ns)
{
    int year, month, day, hour, minute, second, zone;
    int64_t fraction;
    const char *at = stamp;
    bool valid = read_digits(&at, 4, 1900, 2200, &year) && read_char(&at, '-') && read_digits(&at, 2, 1, 12, &month) &&
                 read_char(&at, '-') && read_digits(&at, 2, 1, 31, &day) && is_day(year, month, day) && read_char(&at, 'T') &&
                 read_digits(&at, 2, 0, 23, &hour) && read_char(&at, ':') && read_digits(&at, 2, 0, 59, &minute) && read_char(&at, ':') &&
                 read_digits(&at, 2, 0, 60, &second) && read_fraction(&at, &fraction) && read_zone(&at, &zone) && *at == 0;
    if (!valid)
        return false;
    int64_t minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - zone;
    *ns = (minutes * 60 + second) * NS + fraction;
    return true;
}

bool stamp_near(const char *a, const char *b, uint64_t window_ns)
{
    int64_t a_ns, b_ns;
    if (!stamp_parse(a, &a_ns) || !stamp_parse(b, &b_ns))
        return strcmp(a, b) == 0;
    uint64_t apart_ns = a_ns > b_ns ? (uint64_t)a_ns - (uint64_t)b_ns : (uint64_t)b_ns - (uint64_t)a_ns;
    return apart_ns <= window_ns;
}

/* Linked lists whose links lie in what they hold, DL_APPEND and the like. */
#ifndef BASE_LISTS_H
#define BASE_LISTS_H

#include <utlist.h>

#endif

/* Grip length of the fastener that suits a hole: lengths come in sixteenths of an inch, and a code counts them. Two rules are in use;
 * docs/estimators.md says how they compare. Pure. */
#ifndef DRILLING_GRIP_H
#define DRILLING_GRIP_H

/* 1/16 inch, and the parts of it at which the rules round. */
#define GRIP_UNIT_MM      1.5875
#define GRIP_LOW_MM       0.396875 /* a quarter of the unit */
#define GRIP_HIGH_MM      1.42875  /* nine tenths of it */
#define GRIP_TOLERANCE_MM 0.127

enum { GRIP_CODE_MAX = 25 };

/* Three answers from the depth in units, q whole ones and a rest r: */
struct grip_codes {
    int next;          /* q + 1 */
    int exact_or_next; /* q, and one more when r is above the high part */
    int nearest;       /* q; one more when r is not below the low part; two more when it is above the high part */
};

/* depth_mm finite and >= 0 (else all codes are 0). unit_mm > 0, low_mm and high_mm parts of it. */
struct grip_codes grip_length_codes(double depth_mm, double unit_mm, double low_mm, double high_mm);

/* The code from the table: i with U(i-1) < depth_mm <= U(i), U(i) = GRIP_UNIT_MM * i + GRIP_TOLERANCE_MM, U(0) = 0, i = 1 ..
 * GRIP_CODE_MAX; 0 when there is none. */
int grip_table_code(double depth_mm);

#endif

/** Is a node up? A state machine of two states: what is seen goes in, the next state comes out. */

interface HealthRules {
  /** Failures in a row that make a node count as down. */
  failAfter: number;
  /** Checks passed in a row that make it count as up again. */
  passAfter: number;
}

export interface Health {
  readonly isUp: boolean;
  /** Checks in a row whose result was not what the state says. */
  readonly contraryChecks: number;
  /** Requests in a row that failed. They are counted apart: a node may pass every check and fail every request. */
  readonly failedRequests: number;
}

export const UP: Health = { isUp: true, contraryChecks: 0, failedRequests: 0 };
export const DOWN: Health = { isUp: false, contraryChecks: 0, failedRequests: 0 };

/** Active: a check of ours has passed or failed. Only checks bring a node back. */
export function afterCheck(health: Health, passed: boolean, { failAfter, passAfter }: HealthRules): Health {
  if (passed === health.isUp) return health.contraryChecks === 0 ? health : { ...health, contraryChecks: 0 };
  const contraryChecks = health.contraryChecks + 1;
  if (contraryChecks < (health.isUp ? failAfter : passAfter)) return { ...health, contraryChecks };
  return health.isUp ? DOWN : UP;
}

/** Passive: a client's request was answered, or not. */
export function afterRequest(health: Health, answered: boolean, { failAfter }: HealthRules): Health {
  if (answered || !health.isUp)
    return health.failedRequests === 0 ? health : { ...health, failedRequests: 0 };
  const failedRequests = health.failedRequests + 1;
  return failedRequests < failAfter ? { ...health, failedRequests } : DOWN;
}

/** Is the state in doubt? Then the next check comes sooner. */
export const isInDoubt = ({ contraryChecks }: Health) => contraryChecks > 0;

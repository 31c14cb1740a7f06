import type { DatabaseError } from 'pg';

/** An error of the extension, class ES. The driver's error is its cause. Nothing was stored. */
export class EventStoreError extends Error {
  /** The SQLSTATE. */
  readonly code: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;

  constructor(cause: DatabaseError) {
    super(cause.message, { cause });
    this.name = new.target.name;
    this.code = cause.code ?? '';
    this.detail = cause.detail;
    this.hint = cause.hint;
  }
}

/** ES001. Load the stream again, and decide again. */
export class WrongExpectedVersionError extends EventStoreError {
  /** Undefined if a direct INSERT into es_events came in between. */
  readonly stream: string | undefined;
  readonly expected: string | undefined;
  readonly actual: bigint | undefined;

  constructor(cause: DatabaseError) {
    super(cause);
    const found = /^The expected version of stream "(.*)" is (\w+), its actual version is (\d+)\.$/s.exec(
      cause.detail ?? '',
    );
    this.stream = found?.[1];
    this.expected = found?.[2];
    this.actual = found?.[3] === undefined ? undefined : BigInt(found[3]);
  }
}

/** ES002. The id is stored for another event, or only a part of the append is stored. */
export class DuplicateEventError extends EventStoreError {}

/** ES003. The stream was deleted for good. */
export class StreamClosedError extends EventStoreError {}

/** ES004. The event is not what its type is defined as. */
export class InvalidEventError extends EventStoreError {
  /** A line for each violation. */
  readonly violations: readonly string[];

  constructor(cause: DatabaseError) {
    super(cause);
    this.violations = cause.detail?.split('\n') ?? [];
  }
}

/** ES005. The projection has stopped, or has parked the event. What was appended is stored. */
export class ProjectionFailedError extends EventStoreError {}

/** ES006. The events were delivered to another consumer. */
export class NotClaimedError extends EventStoreError {}

/** ES007. An event has come that matches the query. */
export class ConditionFailedError extends EventStoreError {
  /** Position of the first event that matches. */
  readonly position: bigint | undefined;

  constructor(cause: DatabaseError) {
    super(cause);
    const found = /at position (\d+)\.$/.exec(cause.detail ?? '')?.[1];
    this.position = found === undefined ? undefined : BigInt(found);
  }
}

/** ES008. The person was erased, and nothing personal is stored of them any more. */
export class SubjectErasedError extends EventStoreError {
  /** Name of the person. */
  readonly subject: string | undefined;

  constructor(cause: DatabaseError) {
    super(cause);
    this.subject = /^subject "(.*)" was erased$/s.exec(cause.message)?.[1];
  }
}

/** ES009. The stream is of another store: get a new map of slots, and write there with the same ids. */
export class WrongShardError extends EventStoreError {
  readonly stream: string | undefined;
  /** Slot of the stream, from 0 to 1023. */
  readonly slot: number | undefined;

  constructor(cause: DatabaseError) {
    super(cause);
    const slot = /^Its slot is (\d+)\./.exec(cause.detail ?? '')?.[1];
    this.stream = /"(.*)"/s.exec(cause.message)?.[1];
    this.slot = slot === undefined ? undefined : Number(slot);
  }
}

/** The log no longer has what was read: the store was restored, or promoted, at an earlier position. */
export class PositionLostError extends Error {
  override readonly name = 'PositionLostError';

  constructor(
    readonly position: bigint,
    readonly incarnation: string,
  ) {
    super(`the log went on from before position ${position} of incarnation ${incarnation}`);
  }
}

const classes: Record<string, new (cause: DatabaseError) => EventStoreError> = {
  ES001: WrongExpectedVersionError,
  ES002: DuplicateEventError,
  ES003: StreamClosedError,
  ES004: InvalidEventError,
  ES005: ProjectionFailedError,
  ES006: NotClaimedError,
  ES007: ConditionFailedError,
  ES008: SubjectErasedError,
  ES009: WrongShardError,
};

function isOfServer(error: unknown): error is DatabaseError {
  return error instanceof Error && 'severity' in error && 'code' in error;
}

/** The typed error of an error of class ES; any other error as it is. */
export function typedError(error: unknown): unknown {
  const known = isOfServer(error) ? classes[error.code ?? ''] : undefined;

  return known ? new known(error as DatabaseError) : error;
}

/** Returns true if a server said nothing more: what was sent may be stored or not. */
export function isConnectionLost(error: unknown): boolean {
  if (isOfServer(error)) return /^(08...|57P0[1-5]|25P0[34])$/.test(error.code ?? '');
  if (!(error instanceof Error)) return false;
  return (
    ('syscall' in error && 'code' in error) ||
    /^Connection terminated|^Client has encountered a connection error|^timeout exceeded when trying/.test(
      error.message,
    )
  );
}

/** Returns true for errors that go away by themselves, so that the same call may be repeated. */
export function isTransient(error: unknown): boolean {
  return isConnectionLost(error) || (isOfServer(error) && /^(40001|40P01|55P03|53...)$/.test(error.code ?? ''));
}

/** Returns true if another writer was faster: load and decide again. */
export function isConflict(error: unknown): boolean {
  return (
    error instanceof WrongExpectedVersionError ||
    error instanceof ConditionFailedError ||
    error instanceof DuplicateEventError
  );
}

export { Consumer, type ConsumerOptions, type Handler, type HandlerContext, Park, Skip } from './consumer.js';
export {
  type Decided,
  type DecidedOnStream,
  type DecideOptions,
  type Decider,
  decide,
  decideOn,
  fold,
  uuid5,
} from './decide.js';
export {
  ConditionFailedError,
  DuplicateEventError,
  EventStoreError,
  InvalidEventError,
  isConflict,
  isConnectionLost,
  isTransient,
  NotClaimedError,
  PositionLostError,
  ProjectionFailedError,
  StreamClosedError,
  SubjectErasedError,
  WrongExpectedVersionError,
  WrongShardError,
} from './errors.js';
export type {
  Attributes,
  DeliveredEvent,
  EventShape,
  ExpectedVersion,
  FollowedEvent,
  NewEvent,
  NewEventOf,
  Query,
  QueryItem,
  RecordedEvent,
} from './events.js';
export { Listener } from './listener.js';
export { type RetryOptions, retry } from './retry.js';
export {
  type Appended,
  EventStore,
  type ExecuteOptions,
  type Filter,
  type FollowOptions,
  type LoadOptions,
  type PollOptions,
  type QueryOptions,
  type ReadOptions,
  type StateOptions,
  type SubscriptionOptions,
} from './store.js';

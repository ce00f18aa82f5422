"""Every error class of PyWebLLM, with WebLLM's names where WebLLM has one.

Runs on CPython, Pyodide and MicroPython, so it keeps to their common subset.

    MLCError
    |-- ConfigurationError
    |   |-- ModelNotFoundError
    |   |-- ConfigurationNotInitializedError
    |   |-- ReloadArgumentSizeUnmatchedError
    |   |-- ReloadModelIdNotUniqueError
    |   |-- UnsupportedTokenizerFilesError
    |   |-- WindowSizeConfigurationError
    |   |-- WindowSizeSpecificationError
    |   |-- AttentionSinkSizeError
    |   |-- EmbeddingChunkingUnsupportedError
    |   |-- EmbeddingSlidingWindowError
    |   |-- ConfigurationFieldError
    |   |-- UnknownArchitectureError
    |   |-- UnknownQuantizationError
    |   `-- UnsupportedModelConfigError
    |-- ModelFileError
    |   |-- MissingFileError
    |   |   `-- RepositoryNotFoundError
    |   |-- TruncatedFileError
    |   |-- NetworkError
    |   |   |-- AccessDeniedError
    |   |   `-- CrossOriginError
    |   |-- IntegrityError
    |   |-- ModelFileFormatError
    |   |-- MissingTensorError
    |   |-- TensorShapeError
    |   `-- ConversionError
    |-- StorageError
    |   |-- StorageFullError
    |   |-- StorageBusyError
    |   `-- CrossContextLockUnavailableError
    |-- DeviceError
    |   |-- WebGPUNotAvailableError
    |   |-- WebGPUNotFoundError
    |   |-- FeatureSupportError
    |   |   `-- ShaderF16SupportError
    |   |-- LimitSupportError
    |   |-- ShaderCompilationError
    |   |-- OutOfMemoryError
    |   |-- ValidationError
    |   `-- DeviceLostError
    |-- EngineError
    |   |-- ModelNotLoadedError
    |   |   `-- WorkerEngineModelNotLoadedError
    |   |-- UnclearModelToUseError
    |   |-- SpecifiedModelNotFoundError
    |   |-- IncorrectPipelineLoadedError
    |   |   `-- EmbeddingUnsupportedModelError
    |   |-- ContextWindowSizeExceededError
    |   |   `-- EmbeddingExceedContextWindowSizeError
    |   |-- PrefillChunkSizeSmallerThanImageError
    |   |-- LogitProcessorError
    |   |-- UnknownMessageKindError
    |   |-- MessageFormatError
    |   |-- UnknownStreamError
    |   |-- UnsupportedEndpointError
    |   |-- ResumableSessionExistsError
    |   |-- ResumableSessionActiveError
    |   |-- ResumableSessionNotFoundError
    |   |-- GrammarMatcherError
    |   `-- ResponseFormatViolationError
    |-- WorkerError
    |   |-- WorkerFailedError
    |   |-- WorkerRestartedError
    |   |-- NonWorkerEnvironmentError
    |   |-- NoServiceWorkerAPIError
    |   |-- ServiceWorkerInitializationError
    |   `-- RemoteError
    |-- AbortError
    `-- RequestError
        |-- ConfigValueError
        |   |-- MinValueError
        |   |-- RangeError
        |   |-- NonNegativeError
        |   |-- InvalidNumberStringError
        |   `-- DependencyError
        |-- MessageOrderError
        |-- SystemMessageOrderError
        |-- UnsupportedRoleError
        |-- ContentTypeError
        |   |-- UserMessageContentErrorForNonVLM
        |   |-- UnsupportedDetailError
        |   `-- UnsupportedImageURLError
        |-- ImageError
        |-- SeedTypeError
        |-- StreamingCountError
        |-- InvalidStreamOptionsError
        |-- UnsupportedFieldsError
        |-- InvalidResponseFormatError
        |   |-- InvalidResponseFormatGrammarError
        |   |-- InvalidResponseFormatStructuralTagError
        |   `-- GrammarMatcherInitError
        |-- CustomResponseFormatError
        |-- InvalidToolChoiceError
        |   `-- UnsupportedToolChoiceTypeError
        |-- UnsupportedToolTypeError
        |-- UnsupportedToolsError
        |-- FunctionNotFoundError
        |-- EmbeddingInputEmptyError
        |-- EmbeddingUnsupportedEncodingFormatError
        `-- ChatTemplateError
"""


class MLCError(Exception):
    """Base of all errors raised on purpose; its text says what to do.

    Each is made from its text alone, so that it can cross the worker border. `remote_traceback`
    is the worker's traceback as text, when the error came from there.
    """

    remote_traceback = ""


class ConfigurationError(MLCError):
    """The configuration cannot be used as it stands."""


class ModelNotFoundError(ConfigurationError):
    """`model_id` is in no record of `AppConfig.model_list`."""


class ConfigurationNotInitializedError(ConfigurationError):
    """The engine was used before a configuration was set."""


class ReloadArgumentSizeUnmatchedError(ConfigurationError):
    """`chat_opts` is a list of another length than `model_id`."""


class ReloadModelIdNotUniqueError(ConfigurationError):
    """The same model id was given twice to `reload`."""


class UnsupportedTokenizerFilesError(ConfigurationError):
    """The model brings no tokenizer file that we can read."""


class WindowSizeConfigurationError(ConfigurationError):
    """Both `context_window_size` and `sliding_window_size` are positive."""


class WindowSizeSpecificationError(ConfigurationError):
    """Neither `context_window_size` nor `sliding_window_size` is positive."""


class AttentionSinkSizeError(ConfigurationError):
    """`attention_sink_size` is missing beside a sliding window, or not smaller than it."""


class EmbeddingChunkingUnsupportedError(ConfigurationError):
    """An embedding model's `prefill_chunk_size` is smaller than its `context_window_size`."""


class EmbeddingSlidingWindowError(ConfigurationError):
    """An embedding model is configured with a sliding window."""


class ConfigurationFieldError(ConfigurationError):
    """A field of `AppConfig`, `ModelRecord` or `chat_opts` has a wrong type or value."""


class UnknownArchitectureError(ConfigurationError):
    """`model_type` names no architecture that we have."""


class UnknownQuantizationError(ConfigurationError):
    """`quantization` names no weight format that we have."""


class UnsupportedModelConfigError(ConfigurationError):
    """A field of the model's configuration has a value that our kernels cannot run."""


class ModelFileError(MLCError):
    """A model's file is missing, damaged, or not what the model needs."""


class MissingFileError(ModelFileError):
    """The file does not exist at its address."""


class RepositoryNotFoundError(MissingFileError):
    """The hub has no such repository, or no such revision of it."""


class TruncatedFileError(ModelFileError):
    """The file is shorter than its index or its server says."""


class NetworkError(ModelFileError):
    """The file could not be fetched.

    `status` is the HTTP status, 0 where no answer came; `retry_after_s` is how long the server asks
    to wait before another try, 0 where it says nothing.
    """

    status = 0
    retry_after_s = 0.0


class AccessDeniedError(NetworkError):
    """The server wants a login, or an access token that may read the model."""


class CrossOriginError(NetworkError):
    """The server does not let pages of this site read its files (CORS)."""


class IntegrityError(ModelFileError):
    """A file is not the one that its hash was made of.

    `url`, `expected` and `actual` are the file's address and the two hashes.
    """

    url = ""
    expected = ""
    actual = ""


class ModelFileFormatError(ModelFileError):
    """The file is not valid JSON, or a field has the wrong type or value."""


class MissingTensorError(ModelFileError):
    """The index names no tensor that the architecture needs."""


class TensorShapeError(ModelFileError):
    """A tensor has another shape or dtype than the configuration asks for."""


class ConversionError(ModelFileError):
    """A checkpoint cannot be converted to MLC's format."""


class StorageError(MLCError):
    """The browser's storage refused; a model that cannot be stored can still be loaded."""


class StorageFullError(StorageError):
    """The browser gives this site no more room; the text names models that could be deleted."""


class StorageBusyError(StorageError):
    """A model's files are being written, here or in another tab."""


class CrossContextLockUnavailableError(StorageError):
    """The browser has no locks between tabs, which a resumable generation needs."""


class DeviceError(MLCError):
    """The GPU cannot be had, cannot do what is asked, or failed."""


class WebGPUNotAvailableError(DeviceError):
    """The browser has no `navigator.gpu`."""


class WebGPUNotFoundError(DeviceError):
    """The browser has WebGPU, but gives no adapter."""


class FeatureSupportError(DeviceError):
    """The adapter lacks a feature that the model requires."""


class ShaderF16SupportError(FeatureSupportError):
    """The adapter lacks `shader-f16`, and the model's record requires it."""


class LimitSupportError(DeviceError):
    """A limit of the adapter is smaller than what the model needs."""


class ShaderCompilationError(DeviceError):
    """A kernel does not compile; the text shows the shader's line."""


class OutOfMemoryError(DeviceError):
    """A buffer could not be allocated on the GPU."""


class ValidationError(DeviceError):
    """WebGPU refused an operation; an error of ours, worth a report."""


class DeviceLostError(DeviceError):
    """The GPU device was lost; reload the model to go on."""


class EngineError(MLCError):
    """The engine's state does not allow the call."""


class ModelNotLoadedError(EngineError):
    """A request came before any model was loaded."""


class WorkerEngineModelNotLoadedError(ModelNotLoadedError):
    """A request was sent through a proxy that never loaded a model."""


class UnclearModelToUseError(EngineError):
    """Several models are loaded and the request names none."""


class SpecifiedModelNotFoundError(EngineError):
    """The request names a model that is not loaded."""


class IncorrectPipelineLoadedError(EngineError):
    """The request is for a language model, but the loaded model makes embeddings."""


class EmbeddingUnsupportedModelError(IncorrectPipelineLoadedError):
    """The request is for embeddings, but the loaded model makes none."""


class ContextWindowSizeExceededError(EngineError):
    """The prompt has more tokens than the context window."""


class PrefillChunkSizeSmallerThanImageError(EngineError):
    """An image has more tokens than `prefill_chunk_size`."""


class EmbeddingExceedContextWindowSizeError(ContextWindowSizeExceededError):
    """An input of an embedding request has more tokens than the context window."""


class LogitProcessorError(EngineError):
    """A logit processor raised, or returned no logits; the text has its traceback."""


class UnknownMessageKindError(EngineError):
    """A worker message has a `kind` that nobody handles."""


class MessageFormatError(EngineError):
    """A worker message is not what its kind asks for; the text names the field.

    `uuid` is the message's, where it could be read.
    """

    uuid = ""


class UnknownStreamError(EngineError):
    """A worker message names a stream that has ended or was never opened."""


class UnsupportedEndpointError(EngineError):
    """The engine behind the worker has no method for the request."""


class ResumableSessionExistsError(EngineError):
    """A new generation names a session that is there already."""


class ResumableSessionActiveError(EngineError):
    """A session belongs to a generation that is running, here or in another tab."""


class ResumableSessionNotFoundError(EngineError):
    """No session of that name is stored."""


class GrammarMatcherError(EngineError):
    """A token was drawn that the reply's grammar forbids; an error of ours or a processor's."""


class ResponseFormatViolationError(EngineError):
    """A finished reply breaks its JSON Schema where the grammar cannot tell; the text says where.

    `content` is the reply.
    """

    content = ""


class WorkerError(MLCError):
    """The worker is gone, or something in it failed that is no error class of ours."""


class WorkerFailedError(WorkerError):
    """The worker could not start, died or was closed; make a new one to go on."""


class NonWorkerEnvironmentError(WorkerError):
    """A handler was made outside of the kind of worker that it is for."""


class NoServiceWorkerAPIError(WorkerError):
    """The page has no `navigator.serviceWorker`."""


class ServiceWorkerInitializationError(WorkerError):
    """No service worker is registered for the page, or it could not be registered."""


class WorkerRestartedError(WorkerError):
    """The browser ended the worker during a request that cannot be repeated; send it again.

    A worker with its state gone has taken its place: the next request loads the model again.
    """


class RemoteError(WorkerError):
    """An exception in the worker that is none of these classes.

    `name` is the name of its class, `remote_traceback` the worker's traceback as text.
    """

    name = "Error"


class AbortError(MLCError):
    """A request was ended by the `signal` that was given along; the text is the reason."""


class RequestError(MLCError):
    """The request cannot be served as it stands."""


class ConfigValueError(RequestError):
    """A field has a value of the wrong type or out of range."""


class MinValueError(ConfigValueError):
    """A field is not greater than its lower bound."""


class RangeError(ConfigValueError):
    """A field lies outside its range."""


class NonNegativeError(ConfigValueError):
    """A field is negative."""


class InvalidNumberStringError(ConfigValueError):
    """A key of `logit_bias` is no token id."""


class DependencyError(ConfigValueError):
    """A field is given without another one that it needs."""


class MessageOrderError(RequestError):
    """The last message is not the user's or a tool's."""


class SystemMessageOrderError(RequestError):
    """A system message is not the first message."""


class UnsupportedRoleError(RequestError):
    """A message has an unknown role."""


class ContentTypeError(RequestError):
    """A message's content has a type that its role does not allow."""


class UserMessageContentErrorForNonVLM(ContentTypeError):
    """A message has an image, sound or file, and the model takes text only."""


class UnsupportedDetailError(ContentTypeError):
    """An image's `detail` is none of OpenAI's."""


class UnsupportedImageURLError(ContentTypeError):
    """An image's URL is of no kind that can be read."""


class ImageError(RequestError):
    """An image cannot be fetched or decoded, or is too large."""


class SeedTypeError(RequestError):
    """`seed` is not an integer."""


class StreamingCountError(RequestError):
    """`stream` is asked for together with `n` greater than 1; only WebLLM's own worker minds."""


class InvalidStreamOptionsError(RequestError):
    """`stream_options` is given without `stream=True`."""


class UnsupportedFieldsError(RequestError):
    """The request has fields that are not supported; the text lists them."""


class InvalidResponseFormatError(RequestError):
    """`response_format` is not one that can be followed; the text names the part and its remedy."""


class InvalidResponseFormatGrammarError(InvalidResponseFormatError):
    """The grammar or the regular expression of `response_format` is wrong."""


class InvalidResponseFormatStructuralTagError(InvalidResponseFormatError):
    """The structural tag of `response_format` is wrong."""


class GrammarMatcherInitError(InvalidResponseFormatError):
    """The grammar of a reply could not be compiled; simplify it."""


class CustomResponseFormatError(RequestError):
    """`response_format` leaves no way to call the tools that may be called."""


class InvalidToolChoiceError(RequestError):
    """`tool_choice` is none of its values, or asks for a call without tools."""


class UnsupportedToolChoiceTypeError(InvalidToolChoiceError):
    """`tool_choice` names a tool that is no function."""


class UnsupportedToolTypeError(RequestError):
    """A tool is no function."""


class UnsupportedToolsError(RequestError):
    """The model's chat template has no place for tools."""


class FunctionNotFoundError(RequestError):
    """`tool_choice` names a function that is not in `tools`."""


class EmbeddingInputEmptyError(RequestError):
    """The input of an embedding request, or a part of it, is empty."""


class EmbeddingUnsupportedEncodingFormatError(RequestError):
    """`encoding_format` is neither "float" nor "base64"."""


class ChatTemplateError(RequestError):
    """The chat template refused the messages, or is itself wrong."""

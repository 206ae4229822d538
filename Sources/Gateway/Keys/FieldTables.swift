/// The fields of Ollama's request types. Sources: `api/types.go`, `openai/openai.go`; OLLAMA.md says which
/// spellings are alike.
extension FieldTable {
    /// The fields of a request; nothing for endpoints whose answers are not kept.
    static func of(_ endpoint: Endpoint) -> FieldTable {
        switch endpoint {
        case .generate: generate
        case .chat: chat
        case .embed: embed
        case .embeddings: embeddings
        case .chatCompletions: chatCompletions
        case .completions: completions
        case .openAIEmbeddings: openAIEmbeddings
        case .responses, .messages, .transcriptions: nameless
        }
    }

    private static let generate = FieldTable([
        "model": .model, "prompt": .prompt, "suffix": .text, "system": .text, "template": .text, "context": .list,
        "stream": .stream, "raw": .flag, "format": .format, "keep_alive": .keepAlive, "images": .list,
        "options": .options, "think": .think, "truncate": .flagOnByDefault, "shift": .optionalFlag,
        "logprobs": .flag, "top_logprobs": .count, "_debug_render_only": .debug, "tools": .tools,
        "stream_options": .leftOut,
    ])

    private static let chat = FieldTable([
        "model": .model, "messages": .nativeMessages, "stream": .stream, "format": .format,
        "keep_alive": .keepAlive, "tools": .tools, "options": .options, "think": .think,
        "truncate": .flagOnByDefault, "shift": .optionalFlag, "logprobs": .flag, "top_logprobs": .count,
        "_debug_render_only": .debug, "stream_options": .leftOut,
    ])

    private static let embed = FieldTable([
        "model": .model, "input": .input, "truncate": .flagOnByDefault, "dimensions": .count, "options": .options,
        "keep_alive": .keepAlive, "stream": .leftOut, "stream_options": .leftOut, "tools": .tools,
    ])

    private static let embeddings = FieldTable([
        "model": .model, "prompt": .prompt, "options": .options, "keep_alive": .keepAlive, "stream": .leftOut,
        "stream_options": .leftOut, "tools": .tools,
    ])

    private static let chatCompletions = FieldTable([
        "model": .model, "messages": .messages, "stream": .stream, "stream_options": .streamOptions,
        "max_tokens": .optionalInteger, "seed": .optionalInteger, "stop": .stop,
        "temperature": .numberOneByDefault, "top_p": .numberOneByDefault, "frequency_penalty": .number,
        "presence_penalty": .number, "response_format": .responseFormat, "tools": .tools,
        "reasoning": .reasoning, "reasoning_effort": .optionalText, "logprobs": .optionalFlag,
        "top_logprobs": .count, "_debug_render_only": .debug, "keep_alive": .keepAlive, "user": .leftOut,
        "store": .leftOut, "metadata": .leftOut,
    ])

    private static let completions = FieldTable([
        "model": .model, "prompt": .prompt, "suffix": .text, "stream": .stream, "stream_options": .streamOptions,
        "max_tokens": .optionalInteger, "seed": .optionalInteger, "stop": .stop,
        "temperature": .numberOneByDefault, "top_p": .numberOneForZero, "frequency_penalty": .numberZeroByDefault,
        "presence_penalty": .numberZeroByDefault, "logprobs": .optionalInteger, "_debug_render_only": .debug,
        "tools": .tools, "keep_alive": .keepAlive, "user": .leftOut, "store": .leftOut, "metadata": .leftOut,
    ])

    private static let openAIEmbeddings = FieldTable([
        "model": .model, "input": .input, "dimensions": .count, "encoding_format": .encodingFormat,
        "tools": .tools, "keep_alive": .keepAlive, "stream": .leftOut, "stream_options": .leftOut,
        "user": .leftOut, "store": .leftOut, "metadata": .leftOut,
    ])

    /// A message of `/api/chat`.
    static let nativeMessage = FieldTable([
        "role": .role, "content": .text, "thinking": .text, "images": .list, "tool_calls": .toolCalls,
        "tool_name": .text, "tool_call_id": .text,
    ])

    /// A message of `/v1/chat/completions`.
    static let message = FieldTable([
        "role": .text, "content": .content, "reasoning": .text, "tool_calls": .optionalToolCalls, "name": .text,
        "tool_call_id": .text,
    ])

    /// A tool call, and the function in it.
    static let toolCall = FieldTable([
        "id": .unknown, "type": .unknown, "index": .unknown, "function": .unknown, "name": .unknown,
        "arguments": .verbatim,
    ])

    /// `options`. Those of Go's type `int` are named; Ollama finds a name only as it is written here.
    static let options = FieldTable(
        others: .option, ignoresCase: false,
        [
            "num_ctx": .integerOption, "num_batch": .integerOption, "num_gpu": .integerOption,
            "main_gpu": .integerOption, "num_thread": .integerOption, "num_keep": .integerOption,
            "seed": .integerOption, "num_predict": .integerOption, "top_k": .integerOption,
            "repeat_last_n": .integerOption, "draft_num_predict": .integerOption,
        ])

    static let responseFormat = FieldTable(["type": .text, "json_schema": .schema])
    static let reasoning = FieldTable(["effort": .text])
    static let streamOptions = FieldTable(["include_usage": .flag])
    /// An object of which nothing is known.
    static let nameless = FieldTable([:])
}

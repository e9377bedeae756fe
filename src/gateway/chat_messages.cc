// The messages and tools of a chat request, brought into the form that chat templates expect.
#include "gateway/openai_request.h"

namespace switchyard::gateway {
namespace {

// Text parts, joined by line breaks. False: something in `content` is wrong, and `fields` says what.
bool read_parts(FieldReader& fields, const std::string& where, const nlohmann::ordered_json& parts,
                std::string& text) {
  for (const auto& part : parts) {
    const auto bad = [&](std::string message) {
      fields.fail(invalid_field(where, "'{}' {}", where, message));
      return false;
    };
    if (part.is_string()) {
      text += (text.empty() ? "" : "\n") + part.get<std::string>();
      continue;
    }
    if (!part.is_object()) return bad(fmt::format("must hold objects, holds {}.", json_kind(part)));
    const auto type = part.find("type");
    if (type == part.end() || !type->is_string()) return bad("holds a part without a 'type'.");
    if (*type != "text") {
      return bad(fmt::format("holds a part of type '{}'; only 'text' is served.",
                             type->get_ref<const std::string&>().substr(0, 40)));
    }
    const auto words = part.find("text");
    if (words == part.end() || !words->is_string())
      return bad("holds a text part without a string in 'text'.");
    text += (text.empty() ? "" : "\n") + words->get<std::string>();
  }
  return true;
}

// Templates want the arguments of a call as an object; OpenAI's clients send them as a string of JSON.
nlohmann::ordered_json with_parsed_arguments(nlohmann::ordered_json calls) {
  for (auto& call : calls) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) continue;
    auto& function = call["function"];
    const auto arguments = function.find("arguments");
    if (arguments == function.end() || !arguments->is_string()) continue;
    if (auto parsed = parse_json_object(arguments->get_ref<const std::string&>()))
      *arguments = std::move(*parsed);
  }
  return calls;
}

bool read_message(FieldReader& fields, std::size_t index, const nlohmann::ordered_json& source,
                  nlohmann::ordered_json& messages) {
  const std::string where = fmt::format("messages[{}]", index);
  if (!source.is_object()) {
    fields.fail(invalid_field(where, "'{}' must be an object, is {}.", where, json_kind(source)));
    return false;
  }
  FieldReader inner(source, where + ".");
  nlohmann::ordered_json message = nlohmann::ordered_json::object();
  auto role = inner.string("role").value_or("");
  if (role == "developer") role = "system";  // the newer word for it; templates know the older
  if (inner.ok() && role != "system" && role != "user" && role != "assistant" && role != "tool") {
    inner.fail("role", "must be one of system, developer, user, assistant, tool; is '{}'.",
               role.substr(0, 40));
  }
  message["role"] = role;
  if (auto name = inner.string("name")) message["name"] = std::move(*name);
  if (auto id = inner.string("tool_call_id")) message["tool_call_id"] = std::move(*id);
  const auto* calls = inner.array("tool_calls");
  if (calls != nullptr && !calls->empty()) message["tool_calls"] = with_parsed_arguments(*calls);

  const auto* content = inner.find("content");
  std::string text;
  if (content == nullptr) {
    if (inner.ok() && role != "assistant")
      inner.fail("content", "is required: a string or an array of text parts.");
  } else if (content->is_string()) {
    text = content->get<std::string>();
  } else if (content->is_array()) {
    if (!read_parts(inner, where + ".content", *content, text)) text.clear();
  } else {
    inner.fail("content", "must be a string or an array of text parts, is {}.", json_kind(*content));
  }
  message["content"] = std::move(text);
  if (!inner.ok()) {
    fields.fail(inner.error());
    return false;
  }
  messages.push_back(std::move(message));
  return true;
}

}  // namespace

nlohmann::ordered_json read_messages(FieldReader& fields) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  const auto* source = fields.array("messages");
  if (source == nullptr || source->empty()) {
    fields.fail("messages", "is required: an array of at least one message.");
    return messages;
  }
  std::size_t index = 0;
  for (const auto& message : *source) {
    if (!read_message(fields, index++, message, messages)) break;
  }
  return messages;
}

nlohmann::ordered_json read_tools(FieldReader& fields) {
  const auto* tools = fields.array("tools");
  const auto* choice = fields.find("tool_choice");
  if (choice != nullptr && *choice != "none" && *choice != "auto") {
    fields.fail("tool_choice", "must be 'none' or 'auto'; forcing a tool is not served.");
  }
  if (tools == nullptr) return nullptr;
  for (const auto& tool : *tools) {
    const auto function = tool.is_object() ? tool.find("function") : tool.end();
    if (!tool.is_object() || function == tool.end() || !function->is_object() ||
        !function->contains("name") || !(*function)["name"].is_string()) {
      fields.fail("tools",
                  "must hold objects of the form {{\"type\": \"function\", \"function\": {{\"name\": …}}}}.");
      return nullptr;
    }
  }
  if (tools->empty() || (choice != nullptr && *choice == "none")) return nullptr;
  return *tools;
}

}  // namespace switchyard::gateway

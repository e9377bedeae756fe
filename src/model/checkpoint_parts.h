// What a format's reader finds in a checkpoint, before the tokenizer is added: the seam between formats and
// Checkpoint.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/mapped_file.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct CheckpointParts {
  ModelConfig config;
  std::vector<Tensor> tensors;
  std::string format;
  std::vector<std::filesystem::path> files;
  std::vector<MappedFile> mappings;  // what the tensors' bytes are views of
  std::optional<GgufMetadata> gguf;  // else the tokenizer is in `directory`
  std::filesystem::path directory;
};

// Errors: not_found, corrupt, unsupported, io; messages name the file.
Result<CheckpointParts> read_gguf(const std::filesystem::path& file);
// A GGUF file's configuration and tensors, of bytes that outlive the result. `name`: when the file has none.
Result<CheckpointParts> read_gguf_bytes(std::span<const std::byte> bytes, std::string_view name);
// `shards`: one .safetensors file, or empty for all that the directory's index (or its only file) names.
Result<CheckpointParts> read_safetensors(const std::filesystem::path& directory,
                                         const std::vector<std::filesystem::path>& shards = {});

// The files of such a checkpoint, as CheckpointParts lists them. Errors: not_found, corrupt (the index), io.
Result<std::vector<std::filesystem::path>> safetensors_files(
    const std::filesystem::path& directory, const std::vector<std::filesystem::path>& shards = {});

// Sorted. Errors: io.
Result<std::vector<std::filesystem::path>> files_with_extension(const std::filesystem::path& directory,
                                                                std::string_view extension);

// The right one of the above for a path as Checkpoint::open takes it.
Result<CheckpointParts> read_checkpoint(const std::filesystem::path& path);

}  // namespace switchyard::model

// Model image: a checkpoint turned once into the bytes that the kernels read.
//
// One page-aligned run that holds every tensor in kernel layout, and an index with the configuration, the
// tokenizer and the SHA-256 of what it was made from. Kept under cache_directory()/images; a second start
// maps it. Immutable and shareable between threads and, through the page cache, between processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "switchyard/result.h"

namespace switchyard::model {

// How a matrix [rows][columns] is stored for the kernels; defined in packed_matrix.h.
struct PackedMatrix;

// Whether it is named as one; the rest is ModelImage::open's to find out.
bool is_image_file(const std::filesystem::path& path);

class ModelImage {
 public:
  // Opens a checkpoint (GGUF file, safetensors file or directory) or an image made before. Reads the
  // checkpoint where its hash is not remembered, and builds the image when there is none for this very
  // checkpoint; `progress(done, total)` counts the bytes of each. It may throw, to end that. Two threads or
  // processes that build the same image at once are safe. Errors: not_found, corrupt, unsupported, io.
  static Result<std::shared_ptr<const ModelImage>> open(
      const std::filesystem::path& path,
      const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});
  // The same image once more, after it was found to be damaged on disk: reads its file again, trusting
  // nothing that is remembered of it, and unless that is whole (somebody else may have been faster), removes
  // it and makes it anew. `hash`: the damaged one's. Errors: as open; corrupt (`path` is itself the image:
  // there is nothing to make it of), invalid (the checkpoint has changed: it gives another image).
  static Result<std::shared_ptr<const ModelImage>> repair(
      const std::filesystem::path& path, std::string_view hash,
      const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});
  // An image file that lies in memory, 64-byte aligned. `keep` is held as long as the image needs the bytes.
  // Costs the reading of its index. Errors: invalid (not aligned), corrupt, unsupported.
  static Result<std::shared_ptr<const ModelImage>> parse(std::span<const std::byte> file,
                                                         std::shared_ptr<const void> keep = {});
  virtual ~ModelImage() = default;

  virtual const ModelConfig& config() const = 0;
  // TokenizerSpec::serialize() of the checkpoint's tokenizer, chat template included.
  virtual std::span<const std::byte> tokenizer() const = 0;
  // Hexadecimal SHA-256 that names the image: of the checkpoint's bytes and the layout's version.
  virtual std::string_view hash() const = 0;
  // Errors: not_found.
  virtual Result<PackedMatrix> matrix(std::string_view name) const = 0;
  // A vector of 32-bit floats (norms, biases). Errors: not_found.
  virtual Result<std::span<const float>> vector(std::string_view name) const = 0;
  // The whole run of bytes, for copies into a berth and for the memory floor of benchmarks.
  virtual std::span<const std::byte> bytes() const = 0;
  // The whole image file, as parse() takes it; empty where only the bytes were placed somewhere.
  virtual std::span<const std::byte> file() const = 0;
  // Copies file() to the begin of `out` and checks it against the hash of its data; where it is mapped from
  // disk, by reading: one that was cut short is an error then, and the page cache does not keep what was
  // read. `go_on` hears of the bytes of each piece; false ends the copying. Costs little more than reading,
  // and a part of another core. Errors: out_of_range (no room), corrupt (cut short, other bytes than were
  // written), io, cancelled, unsupported (no file).
  virtual Status copy_file(std::span<std::byte> out, const std::function<bool(std::uint64_t)>& go_on) const {
    (void)go_on;
    return fail(ErrorCode::unsupported, "a model image without a file was to be copied to {} bytes",
                out.size());
  }
  // The same image whose bytes() were copied to `bytes`, as into a berth; they may still be on their way. It
  // does not hold on to this one's bytes. `bytes` is 64-byte aligned, as long as bytes() at least, and
  // outlives the result. nullptr: too short.
  virtual std::shared_ptr<const ModelImage> placed_at(std::span<const std::byte> bytes) const = 0;
};

}  // namespace switchyard::model

// Show the pictures of one alignment function at a time. Without scripts all of them stand below each other.
(() => {
  const section = document.getElementById("attention-section");
  const choices = section.querySelectorAll('input[name="alignment-function"]');
  const show = (chosen) => {
    for (const drawn of section.querySelectorAll(".drawn")) drawn.hidden = drawn.dataset.function !== chosen;
  };
  section.classList.add("switched");
  section.querySelector(".switch").hidden = choices.length < 2;
  for (const choice of choices) choice.addEventListener("change", () => show(choice.value));
  show([...choices].find((choice) => choice.checked)?.value ?? "0");
})();
